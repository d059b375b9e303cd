package s3test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// Lease issues a credential that expires, as a cloud's metadata service does for
// a machine with a role.
type Lease struct{ end, asked atomic.Int64 }

// Lease sets this process's environment so that, until the test ends, the AWS
// SDK's own chain finds such a credential for the server. Callers must open
// the store without keys.
func (s Server) Lease(t testing.TB, end time.Time) *Lease {
	t.Helper()
	l := &Lease{}
	l.Renew(end)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		l.asked.Add(1)
		_ = json.NewEncoder(w).Encode(map[string]string{"AccessKeyId": s.AccessKey, "SecretAccessKey": s.SecretKey, "Expiration": l.End().UTC().Format(time.RFC3339)})
	}))
	t.Cleanup(srv.Close)
	none := filepath.Join(t.TempDir(), "none")
	if err := os.WriteFile(none, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_CONFIG_FILE", none)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", none)
	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", srv.URL)
	return l
}

// End returns the expiry of the present credential, to the second.
func (l *Lease) End() time.Time { return time.Unix(l.end.Load(), 0) }

// Renew gives the next credential a later expiry, and returns it.
func (l *Lease) Renew(end time.Time) time.Time {
	l.end.Store(end.Unix())
	return l.End()
}

// Asked returns how often the credential was issued.
func (l *Lease) Asked() int64 { return l.asked.Load() }
