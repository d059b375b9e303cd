package bucket_test

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/s3test"
	"nightferry/internal/testbed"
)

// lease opens the store with credentials from a credential service.
func lease(t *testing.T, b s3test.Bucket, end time.Time) (*s3test.Lease, bucket.Presigner) {
	t.Helper()
	l := b.Lease(t, end)
	o := b.Options()
	o.AccessKey, o.SecretKey = "", ""
	return l, testbed.OpenStore(t, b.URL(""), o).(bucket.Presigner)
}

func status(t *testing.T, raw string) int {
	t.Helper()
	resp, err := http.Get(raw)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

// TestPresignEndsWithTheCredential: the reported expiry of a URL is never later
// than that of its credential, and an expiring credential is renewed before.
func TestPresignEndsWithTheCredential(t *testing.T) {
	b := s3test.S3(t)
	testbed.WriteObject(t, b.Open(t), "k", []byte("x"))
	now := time.Now()
	end := now.Add(30 * time.Minute)
	l, p := lease(t, b, end)
	for range 5 {
		raw, until, err := p.PresignGet(t.Context(), "k", now, 24*time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if until.After(end) || until.Before(end.Add(-5*time.Minute)) {
			t.Errorf("good until %s, the credential until %s", until, end)
		}
		if code := status(t, raw); code != http.StatusOK {
			t.Errorf("the store answers %d", code)
		}
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		if life, err := time.ParseDuration(u.Query().Get("X-Amz-Expires") + "s"); err != nil || now.Add(life).After(end) {
			t.Errorf("it says itself that it is good for %s: %v", life, err)
		}
	}
	if n := l.Asked(); n != 1 {
		t.Errorf("the credential was asked for %d times", n)
	}
	if _, until, err := p.PresignGet(t.Context(), "k", now, time.Minute); err != nil || !until.Equal(now.Add(time.Minute)) {
		t.Errorf("a short one is good until %s: %v", until, err)
	}
	// In the credential's last minutes, a URL expires with it at the latest, and the next credential arrives before.
	l, p = lease(t, b, now.Add(90*time.Second))
	if _, until, err := p.PresignGet(t.Context(), "k", now, time.Hour); err != nil || until.After(now.Add(90*time.Second)) {
		t.Errorf("good until %s: %v", until, err)
	}
	l.Renew(now.Add(6 * time.Hour))
	if _, until, err := p.PresignGet(t.Context(), "k", now, time.Hour); err != nil || !until.Equal(now.Add(time.Hour)) {
		t.Errorf("renewed, good until %s: %v", until, err)
	}
	// An expired credential signs nothing.
	_, p = lease(t, b, now.Add(-time.Hour))
	if _, _, err := p.PresignGet(t.Context(), "k", now, time.Hour); bucket.KindOf(err) != bucket.KindExpired {
		t.Errorf("a credential of the past: %v", err)
	}
}

// TestPresignByTheStoresClock: URLs are dated with the given time, not this
// machine's.
func TestPresignByTheStoresClock(t *testing.T) {
	b := s3test.S3(t)
	s := b.Open(t)
	testbed.WriteObject(t, s, "k", []byte("x"))
	for _, c := range []struct {
		now  time.Time
		want int
	}{{time.Now(), http.StatusOK}, {time.Now().Add(-time.Hour), http.StatusForbidden}} {
		raw, until, err := s.(bucket.Presigner).PresignGet(t.Context(), "k", c.now, 30*time.Minute)
		if err != nil || !until.Equal(c.now.Add(30*time.Minute)) {
			t.Fatal(until, err)
		}
		if code := status(t, raw); code != c.want {
			t.Errorf("signed at %s: the store answers %d, want %d", c.now, code, c.want)
		}
	}
}
