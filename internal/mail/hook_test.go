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
	err := Hook{address, "tok"}.Post(t.Context(), map[string]int{"a": 1})
	if err != nil || got != `{"a":1}` || auth != "Bearer tok" || !json.Valid([]byte(got)) {
		t.Errorf("sent %q with %q: %v", got, auth, err)
	}
	for _, status = range []int{http.StatusInternalServerError, http.StatusFound, http.StatusUnauthorized} {
		err := Hook{address, "tok"}.Post(t.Context(), 1)
		if err == nil || strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "tok") {
			t.Errorf("%d: %v", status, err)
		}
	}
	srv.Close()
	err = Hook{URL: address}.Post(t.Context(), 1)
	if err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("nobody there: %v", err)
	}
}

func TestParseHook(t *testing.T) {
	for text, want := range map[string]Hook{
		"https://h/s3cret":               {URL: "https://h/s3cret"},
		" https://u:p@h/s3cret\ttok\r\n": {URL: "https://u:p@h/s3cret", Token: "tok"},
	} {
		if got, err := ParseHook(text); err != nil || got != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "s3cret", "ftp://h/s3cret", "https:///s3cret", "https://h/%zs3cret", "https://h/s3cret to ken"} {
		if got, err := ParseHook(text); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}
