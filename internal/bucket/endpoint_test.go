package bucket_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

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
