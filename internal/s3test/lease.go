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

// Lease hands out a credential that ends, as a cloud's metadata service does to
// a machine that has a role.
type Lease struct{ end, asked atomic.Int64 }

// Lease makes the AWS SDK's own chain find such a credential for the server, by
// this process's environment, until the test ends. Who opens a store then must
// give no keys.
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

// End is when the credential ends that is given out now, to the second.
func (l *Lease) End() time.Time { return time.Unix(l.end.Load(), 0) }

// Renew lets the next one end later, and returns when.
func (l *Lease) Renew(end time.Time) time.Time {
	l.end.Store(end.Unix())
	return l.End()
}

// Asked counts how often it was given out.
func (l *Lease) Asked() int64 { return l.asked.Load() }
