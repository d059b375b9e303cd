package bucket_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"nightferry/internal/bucket"
)

// TestWrongEndpoint: an address that stays wrong is tried once, and the error
// names the cause and the correct form.
func TestWrongEndpoint(t *testing.T) {
	const region = `<?xml version="1.0"?><Error><Code>PermanentRedirect</Code><Message>use the other endpoint</Message></Error>`
	redirecting := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Amz-Bucket-Region", "eu-west-1")
		w.WriteHeader(http.StatusMovedPermanently)
		fmt.Fprint(w, region)
	})
	plain, secure := httptest.NewServer(redirecting), httptest.NewTLSServer(redirecting)
	secure.Config.ErrorLog = nil
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	for _, tt := range []struct{ endpoint, want string }{
		{strings.Replace(plain.URL, "http:", "https:", 1), "speaks http, not https"},
		{strings.Replace(secure.URL, "https:", "http:", 1), "likely speaks https, not http"},
		{plain.URL, "add ?region=eu-west-1"},
	} {
		retries := 0
		s, err := bucket.Open(t.Context(), "s3://bucket/p?endpoint="+tt.endpoint, bucket.Options{AccessKey: "k", SecretKey: "s", OnRetry: func(error) { retries++ }})
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = s.Get(t.Context(), "head", 0, -1)
		if bucket.KindOf(err) != bucket.KindEndpoint || !strings.Contains(err.Error(), tt.want) || retries > 0 {
			t.Errorf("%s: %v, %d retries", tt.endpoint, err, retries)
		}
	}
}

// TestNoCredentials: the sources of credentials are asked twice, not eight times.
func TestNoCredentials(t *testing.T) {
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CONFIG_FILE", "/nonexistent")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
	srv := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(srv.Close)
	retries := 0
	s, err := bucket.Open(t.Context(), "s3://bucket/p?endpoint="+srv.URL, bucket.Options{OnRetry: func(error) { retries++ }})
	if err == nil {
		_, _, err = s.Get(t.Context(), "head", 0, -1)
	}
	if bucket.KindOf(err) != bucket.KindDenied || !strings.Contains(err.Error(), "AWS_ACCESS_KEY_ID") || retries > 1 {
		t.Errorf("%v, %d retries", err, retries)
	}
}

// TestNotAnS3Server: each server that is not what the URL says is recognized
// within seconds, by the first try: one that leaves a TLS greeting unanswered, one
// that breaks its connection, and ones of other protocols.
func TestNotAnS3Server(t *testing.T) {
	isHTTP := func(b []byte) bool { return bytes.HasPrefix(b, []byte("GET ")) }
	const notFound = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
	for _, tt := range []struct {
		name, scheme, want string
		reply              func([]byte) (text string, wait bool)
	}{
		{"silent to TLS", "https", "speaks http, not https", func(b []byte) (string, bool) {
			if isHTTP(b) {
				return notFound, false
			}
			return "", true
		}},
		{"breaks TLS", "https", "speaks http, not https", func(b []byte) (string, bool) {
			if isHTTP(b) {
				return notFound, false
			}
			return "", false
		}},
		{"ssh to http", "http", "neither http nor https", func([]byte) (string, bool) { return "SSH-2.0-x\r\n", false }},
		{"ssh to https", "https", "neither http nor https", func([]byte) (string, bool) { return "SSH-2.0-x\r\n", false }},
		{"TLS alert", "http", "likely speaks https", func([]byte) (string, bool) { return "\x15\x03\x01\x00\x02\x02\x16", false }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			var serving sync.WaitGroup
			serving.Go(func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					serving.Go(func() {
						defer c.Close()
						b := make([]byte, 16) // the rest stays unread, so that closing resets the connection
						n, _ := io.ReadFull(c, b)
						text, wait := tt.reply(b[:n])
						_, _ = io.WriteString(c, text)
						if wait {
							_, _ = io.Copy(io.Discard, c)
						}
					})
				}
			})
			defer serving.Wait()
			defer l.Close()
			retries := 0
			s, err := bucket.Open(t.Context(), "s3://bucket/p?endpoint="+tt.scheme+"://"+l.Addr().String(), bucket.Options{AccessKey: "k", SecretKey: "s", OnRetry: func(err error) { retries++; t.Log(err) }})
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			_, _, err = s.Get(t.Context(), "head", 0, -1)
			if bucket.KindOf(err) != bucket.KindEndpoint || !strings.Contains(err.Error(), tt.want) || retries > 0 {
				t.Errorf("%v, %d retries", err, retries)
			}
			if d := time.Since(began); d > time.Minute {
				t.Errorf("took %s", d)
			}
		})
	}
}

// TestNobodyListens: a port on which nothing listens is a slip in the URL more
// often than a fault, until the store has answered once.
func TestNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.Listener.Close()
	srv.Listener = l
	srv.Start()
	url := "s3://bucket/p?endpoint=" + srv.URL
	get := func(s bucket.Store) error {
		_, _, err := s.Get(t.Context(), "head", 0, -1)
		return err
	}
	open := func(retries *int) bucket.Store {
		s, err := bucket.Open(t.Context(), url, bucket.Options{AccessKey: "k", SecretKey: "s", MinBackoff: time.Millisecond, MaxBackoff: time.Millisecond, OnRetry: func(error) { *retries++ }})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	var before, after int
	answered := open(&after)
	if err := get(answered); bucket.KindOf(err) != bucket.KindEndpoint {
		t.Fatal(err)
	}
	srv.Close()
	if err := get(open(&before)); bucket.KindOf(err) != bucket.KindUnreachable || before != 2 {
		t.Errorf("never answered: %v, %d retries, want 2", err, before)
	}
	if err := get(answered); bucket.KindOf(err) != bucket.KindUnreachable || after != 7 {
		t.Errorf("answered before: %v, %d retries, want 7", err, after)
	}
}

// TestWebPageInPlaceOfTheStore: a network that wants a sign-in, or a proxy, answers every request with a page and with
// the status of a success. That is no object, no list, and no proof that a write was taken.
func TestWebPageInPlaceOfTheStore(t *testing.T) {
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, "<html>sign in to the network</html>")
	}))
	defer page.Close()
	retries := 0
	s, err := bucket.Open(t.Context(), "s3://bucket/p?endpoint="+page.URL, bucket.Options{AccessKey: "k", SecretKey: "s", OnRetry: func(error) { retries++ }})
	if err != nil {
		t.Fatal(err)
	}
	_, _, get := s.Get(t.Context(), "head", 0, -1)
	_, put := s.Put(t.Context(), "head", bucket.Bytes([]byte("x")), bucket.Cond{Absent: true})
	list := s.List(t.Context(), "", func(bucket.Info) error { return nil })
	for verb, err := range map[string]error{"get": get, "put": put, "list": list, "delete": s.Delete(t.Context(), "head")} {
		if bucket.KindOf(err) != bucket.KindEndpoint || !strings.Contains(err.Error(), "a web page") {
			t.Errorf("%s: %v", verb, err)
		}
	}
	if retries > 0 {
		t.Errorf("%d retries", retries)
	}
}
