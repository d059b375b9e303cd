package mail

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestPost(t *testing.T) {
	var got, auth string
	status := http.StatusNoContent
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/elsewhere" {
			t.Error("it followed a redirect")
			return
		}
		b, _ := io.ReadAll(r.Body)
		got, auth = string(b), r.Header.Get("Authorization")
		if status == http.StatusFound {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(status)
	}))
	defer srv.Close()
	address := srv.URL + "/hook/s3cret-path?key=s3cret"
	if err := Post(t.Context(), address, "tok", map[string]int{"a": 1}); err != nil || got != `{"a":1}` || auth != "Bearer tok" || !json.Valid([]byte(got)) {
		t.Errorf("sent %q with %q: %v", got, auth, err)
	}
	for _, status = range []int{http.StatusInternalServerError, http.StatusFound, http.StatusUnauthorized} {
		if err := Post(t.Context(), address, "tok", 1); err == nil || strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "tok") {
			t.Errorf("%d: %v", status, err)
		}
	}
	srv.Close()
	if err := Post(t.Context(), address, "", 1); err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("nobody there: %v", err)
	}
}
