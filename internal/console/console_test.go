package console

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

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
