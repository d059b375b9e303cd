package bucket_test

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"nightferry/internal/bucket"
)

// TestWhatAPersonMendsIsToldAtOnce: a request that fails because of a wrong
// setup is not tried eight times, and the error names the remedy.
func TestWhatAPersonMendsIsToldAtOnce(t *testing.T) {
	var asked atomic.Int64
	answer := func(status int, code string, header http.Header) string {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			for k, v := range header {
				w.Header()[k] = v
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "<Error><Code>"+code+"</Code><Message>m</Message></Error>")
		}))
		t.Cleanup(srv.Close)
		return srv.URL
	}
	for name, c := range map[string]struct{ endpoint, hint string }{
		"no conditional writes":    {answer(http.StatusNotImplemented, "NotImplemented", nil), "conditional writes"},
		"501 of something else":    {answer(http.StatusNotImplemented, "", nil), "conditional writes"},
		"virtual hosts only":       {answer(http.StatusForbidden, "SecondLevelDomainForbidden", nil), "style=virtual"},
		"no bucket":                {answer(http.StatusNotFound, "NoSuchBucket", nil), "check the store's URL"},
		"http behind an https URL": {strings.Replace(answer(http.StatusOK, "", nil), "http:", "https:", 1), "endpoint=http://"},
	} {
		asked.Store(0)
		s, err := bucket.Open(t.Context(), "s3://fleet/p?region=eu-west-1&endpoint="+c.endpoint, bucket.Options{AccessKey: "a", SecretKey: "b"})
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Put(t.Context(), "k", bucket.Bytes([]byte("x")), bucket.Cond{Absent: true})
		if err == nil || !strings.Contains(err.Error(), c.hint) || asked.Load() > 1 {
			t.Errorf("%s: asked %d times: %v", name, asked.Load(), err)
		}
	}
}

// TestProxySignIn: a proxy that takes no password gets a remedy that works with it.
func TestProxySignIn(t *testing.T) {
	for offer, hint := range map[string]string{"Basic realm=x": "USER:PASSWORD", "Negotiate": "relay", "NTLM": "relay"} {
		proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Proxy-Authenticate", offer)
			w.WriteHeader(http.StatusProxyAuthRequired)
		}))
		for _, host := range []string{"http://store.nightferry.test", "https://store.nightferry.test"} {
			s, err := bucket.OpenLent(bucket.LentOptions{Host: host, Lend: func(_ context.Context, key, _ string) (string, error) { return host + "/" + key, nil },
				Env:     func(name string) string { return map[string]string{"ALL_PROXY": proxy.URL}[name] },
				Options: bucket.Options{MaxAttempts: 2, MinBackoff: time.Millisecond}})
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := s.Get(t.Context(), "k", 0, -1); err == nil || !strings.Contains(err.Error(), hint) {
				t.Errorf("%s, %s: %v", offer, host, err)
			}
		}
		proxy.Close()
	}
}

// TestLentStoreBehindAnInspectingProxy: an agent trusts the certificates of AWS_CA_BUNDLE, as its remedy promises.
func TestLentStoreBehindAnInspectingProxy(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"e"`)
		_, _ = io.WriteString(w, "hello")
	}))
	defer srv.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	get := func(file string) (string, error) {
		s, err := bucket.OpenLent(bucket.LentOptions{Host: srv.URL, Lend: func(_ context.Context, key, _ string) (string, error) {
			return srv.URL + "/" + url.PathEscape(key), nil
		},
			Env:     func(name string) string { return map[string]string{"AWS_CA_BUNDLE": file}[name] },
			Options: bucket.Options{MaxAttempts: 1}})
		if err != nil {
			return "", err
		}
		body, _, err := s.Get(t.Context(), "k", 0, -1)
		if err != nil {
			return "", err
		}
		defer body.Close()
		b, err := io.ReadAll(body)
		return string(b), err
	}
	if got, err := get(ca); got != "hello" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := get(""); err == nil || !strings.Contains(err.Error(), "AWS_CA_BUNDLE") {
		t.Errorf("without it: %v", err)
	}
	if _, err := get(filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), "AWS_CA_BUNDLE") {
		t.Errorf("a bundle that is not there: %v", err)
	}
}

// TestTLSRefusalIsFinal: a TLS connection that fails because of a setup is not tried eight times, by neither kind of
// store, and the error names the remedy.
func TestTLSRefusalIsFinal(t *testing.T) {
	srv := func(change func(*tls.Config)) string {
		s := httptest.NewUnstartedServer(http.NotFoundHandler())
		s.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
		change(s.TLS)
		s.StartTLS()
		t.Cleanup(s.Close)
		return s.URL
	}
	trusted := httptest.NewTLSServer(http.NotFoundHandler()) // all such servers have the same certificate
	trusted.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: trusted.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ endpoint, ca, hint string }{
		"client certificate": {srv(func(c *tls.Config) { c.ClientAuth, c.MaxVersion = tls.RequireAnyClientCert, tls.VersionTLS12 }), ca, "certificate of its clients"},
		"in TLS 1.3":         {srv(func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert }), ca, "certificate of its clients"},
		"old version":        {srv(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }), ca, "TLS 1.2"},
		"unknown authority":  {srv(func(*tls.Config) {}), "", "AWS_CA_BUNDLE"},
		"another name":       {strings.Replace(srv(func(*tls.Config) {}), "127.0.0.1", "localhost", 1), ca, "host name"},
	} {
		tries := 0
		o := bucket.Options{AccessKey: "a", SecretKey: "b", MinBackoff: time.Millisecond, OnRetry: func(error) { tries++ }}
		env := func(name string) string { return map[string]string{"AWS_CA_BUNDLE": c.ca}[name] }
		l, err := bucket.OpenLent(bucket.LentOptions{Host: c.endpoint, Env: env, Options: o,
			Lend: func(_ context.Context, key, _ string) (string, error) { return c.endpoint + "/" + key, nil }})
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = l.Get(t.Context(), "k", 0, -1)
		if err == nil || tries > 0 || !strings.Contains(err.Error(), c.hint) {
			t.Errorf("%s, presigned: tried again %d times: %v", name, tries, err)
		}
		t.Setenv("AWS_CA_BUNDLE", c.ca)
		s, err := bucket.Open(t.Context(), "s3://fleet/p?region=eu-west-1&endpoint="+c.endpoint, o)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = s.Get(t.Context(), "k", 0, -1)
		if err == nil || tries > 0 || !strings.Contains(err.Error(), c.hint) {
			t.Errorf("%s: tried again %d times: %v", name, tries, err)
		}
	}
}
