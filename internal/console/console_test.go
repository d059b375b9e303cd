package console

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"nightferry/internal/consoletest"
	"nightferry/internal/rights"
)

// anna may do everything; kay may look at one domain.
var (
	anna = rights.Principal{Name: "anna", Role: rights.Admin}
	kay  = rights.Principal{Name: "kay", Role: rights.Viewer, Scope: rights.Scope{Domain: "plant"}}
)

// as adds a principal to each request, as the door does.
func as(p rights.Principal, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(rights.With(r.Context(), p)))
	})
}

// get asks for a page.
func get(t *testing.T, h http.Handler, target string) *httptest.ResponseRecorder {
	t.Helper()
	out := httptest.NewRecorder()
	h.ServeHTTP(out, httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, nil))
	return out
}

// post sends a form.
func post(t *testing.T, h http.Handler, target string, form url.Values) *httptest.ResponseRecorder {
	t.Helper()
	out := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, target, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	h.ServeHTTP(out, r)
	return out
}

// TestPagesAreCompressed checks that a page takes a fraction of its bytes on the line, for a client that accepts that.
func TestPagesAreCompressed(t *testing.T) {
	h := as(anna, New(Options{Backend: consoletest.New().Backend()}))
	plain := get(t, h, "/")
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	r.Header.Set("Accept-Encoding", "gzip")
	out := httptest.NewRecorder()
	h.ServeHTTP(out, r)
	sent := out.Body.Len()
	z, err := gzip.NewReader(out.Body)
	if err != nil {
		t.Fatalf("%v: %v", out.Header(), err)
	}
	text, err := io.ReadAll(z)
	if err != nil || len(text) != plain.Body.Len() || sent*3 > len(text) {
		t.Errorf("%d bytes of %d, %d without compression, %v", sent, len(text), plain.Body.Len(), err)
	}
	if plain.Header().Get("Content-Encoding") != "" || plain.Header().Get("Vary") == "" {
		t.Errorf("%v", plain.Header())
	}
}
