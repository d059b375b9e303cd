package mail_test

import (
	netmail "net/mail"
	"os"
	"path/filepath"
	"testing"
	"time"

	"nightferry/internal/mail"
)

// TestFolder: a mail becomes one file that mail programs can read, however
// often it is delivered. An invalid recipient becomes no file.
func TestFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pickup")
	s := mail.Server{Folder: dir, From: "nf@example.com"}
	m := mail.Message{ID: "incident-1-opened-2", To: "ops@example.com", Subject: "a\r\nBcc: thief@example.com", Text: "plain\n", HTML: "<p>rich</p>", Date: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)}
	for range 2 {
		if err := mail.Send(t.Context(), s, mail.Login{}, m); err != nil {
			t.Fatal(err)
		}
	}
	m.To = "ap@example.com"
	if err := mail.Send(t.Context(), s, mail.Login{}, m); err != nil {
		t.Fatal(err)
	}
	m.To = "../../x"
	if err := mail.Send(t.Context(), s, mail.Login{}, m); err == nil {
		t.Error("no address, and no error")
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != 2 {
		t.Fatalf("%q, %v, want two mails", files, err)
	}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := netmail.ReadMessage(f)
		f.Close()
		if err != nil || len(got.Header["Bcc"]) != 0 || got.Header.Get("Message-Id") != "<incident-1-opened-2@example.com>" || filepath.Ext(name) != ".eml" {
			t.Errorf("%s: %v, %v", name, err, got.Header)
		}
	}
	if err := mail.Send(t.Context(), mail.Server{Folder: filepath.Join(files[0], "x"), From: "nf@example.com"}, mail.Login{}, mail.Message{ID: "1", To: "ops@example.com"}); err == nil {
		t.Error("a folder that cannot be made, and no error")
	}
}
