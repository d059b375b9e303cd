package bucket_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/s3test"
	"nightferry/internal/testbed"
)

// lentStore reads b by URLs that b's own credentials sign. change, if set, sees
// each URL before it is lent.
func lentStore(t *testing.T, b s3test.Bucket, change func(n int64, raw, expired string) string) bucket.Store {
	t.Helper()
	signer := b.Open(t).(bucket.Presigner)
	u, err := url.Parse(b.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	var n atomic.Int64
	s, err := bucket.OpenLent(bucket.LentOptions{
		Options: bucket.Options{MaxAttempts: 4, MinBackoff: time.Millisecond, MaxBackoff: 5 * time.Millisecond, Stall: 2 * time.Second},
		Host:    u.Scheme + "://" + u.Host,
		Lend: func(ctx context.Context, key, expired string) (string, error) {
			raw, _, err := signer.PresignGet(ctx, key, time.Now(), time.Hour)
			if err == nil && change != nil {
				raw = change(n.Add(1), raw, expired)
			}
			return raw, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = bucket.Close(s) })
	return s
}

func TestLentStore(t *testing.T) {
	body := bytes.Repeat([]byte("0123456789abcdef"), 1<<14)
	b, _ := s3test.Through(t, s3test.S3(t), s3test.CutBody(2, 50_000), s3test.SlowDown(1))
	testbed.WriteObject(t, b.Open(t), "packs/aa/x", body)
	s := lentStore(t, b, nil)
	for _, r := range []struct{ off, n int64 }{{0, -1}, {100, 200_000}, {-7, 0}} {
		rc, info, err := s.Get(t.Context(), "packs/aa/x", r.off, r.n)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(rc)
		want := body[max(0, r.off):]
		if r.off < 0 {
			want = body[int64(len(body))+r.off:]
		}
		if r.n > 0 {
			want = want[:r.n]
		}
		if err != nil || !bytes.Equal(got, want) || info.Size != int64(len(body)) || info.Date.IsZero() {
			t.Errorf("range %v: %d bytes, %+v, %v", r, len(got), info, err)
		}
		if err := rc.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, _, err := s.Get(t.Context(), "packs/aa/none", 0, -1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an absent object: %v", err)
	}
	if _, _, err := s.Get(t.Context(), "packs/aa/x", int64(len(body)), 5); bucket.KindOf(err) != bucket.KindIntegrity {
		t.Errorf("a range past the end: %v", err)
	}
	if _, err := s.Put(t.Context(), "k", bucket.Bytes(body), bucket.Cond{}); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("put: %v", err)
	}
	if err := s.Delete(t.Context(), "packs/aa/x"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("delete: %v", err)
	}
	if err := s.List(t.Context(), "", nil); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("list: %v", err)
	}
}

func TestLentURLs(t *testing.T) {
	var hits atomic.Int64
	foreign := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) }))
	defer foreign.Close()
	redirect := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Has("elsewhere") {
				http.Redirect(w, r, foreign.URL+"/x", http.StatusTemporaryRedirect)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
	b, _ := s3test.Through(t, s3test.S3(t), redirect)
	testbed.WriteObject(t, b.Open(t), "head", []byte("head"))
	get := func(change func(int64, string, string) string) error {
		rc, _, err := lentStore(t, b, change).Get(t.Context(), "head", 0, -1)
		if err == nil {
			err = rc.Close()
		}
		if err != nil && (strings.Contains(err.Error(), "X-Amz") || strings.Contains(err.Error(), "Signature=")) {
			t.Errorf("the error shows a signature: %v", err)
		}
		return err
	}
	spoil := func(raw string) string { return strings.Replace(raw, "X-Amz-Signature=", "X-Amz-Signature=00", 1) }
	// A URL that the store refuses is requested anew, once.
	asked := ""
	if err := get(func(n int64, raw, expired string) string {
		if n == 1 {
			return spoil(raw)
		}
		asked = expired
		return raw
	}); err != nil || asked == "" {
		t.Errorf("a URL that had expired: %v, asked with %t", err, asked != "")
	}
	if err := get(func(_ int64, raw, _ string) string { return spoil(raw) }); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("URLs that stay bad: %v", err)
	}
	for name, change := range map[string]func(string) string{
		"another host":   func(raw string) string { return foreign.URL + raw[strings.Index(raw[8:], "/")+8:] },
		"another scheme": func(raw string) string { return strings.Replace(raw, "http:", "https:", 1) },
		"a user":         func(raw string) string { return strings.Replace(raw, "http://", "http://"+foreign.URL[7:]+"@", 1) },
		"another port":   func(raw string) string { u, _ := url.Parse(raw); u.Host = u.Hostname() + ":1"; return u.String() },
		"a redirect":     func(raw string) string { return raw + "&elsewhere=1" },
		"nonsense":       func(string) string { return "http://%zz" },
	} {
		if err := get(func(_ int64, raw, _ string) string { return change(raw) }); err == nil {
			t.Errorf("%s was followed", name)
		}
	}
	if hits.Load() > 0 {
		t.Errorf("the other host was asked %d times", hits.Load())
	}
}
