package vault

import (
	"bytes"
	"encoding/base64"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nightferry/internal/frame"
)

// TestSecretDoesNotPrint tries every way in which a value may be printed by
// mistake.
func TestSecretDoesNotPrint(t *testing.T) {
	const text = "hunter2hunter2"
	s := NewSecret([]byte(text))
	m := masterOf(NewSecret(bytes.Repeat([]byte("hunter2!"), 4)))
	type holder struct {
		Public Secret
		hidden Secret
		list   []Secret
		master Master
	}
	h := holder{s, s, []Secret{s}, m}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%c"} {
		for _, v := range []any{s, &s, h, &h, []any{s}, map[string]Secret{"a": s}, m, &m, fmt.Errorf("x: %v", s)} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		if got := fmt.Sprintf(verb, s); got != hidden {
			t.Errorf("%s gives %q, want %s", verb, got, hidden)
		}
	}
	if b, err := xml.Marshal(s); err != nil || !bytes.Contains(b, []byte(hidden)) {
		t.Errorf("XML gives %q, %v", b, err)
	}
	for _, v := range []any{s, h, m} {
		j, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(j)
		if b, err := frame.Marshal(v); err == nil {
			out.Write(b)
		}
		if err := gob.NewEncoder(&out).Encode(v); err != nil {
			t.Fatal(err)
		}
		if b, err := xml.Marshal(v); err == nil {
			out.Write(b)
		}
		for _, handler := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
			slog.New(handler).Info("x", "value", v, slog.Group("g", "inner", v))
		}
	}
	got := out.String()
	bytesOf := "104 117 110 116 101 114 50" // hunter2 as fmt prints bytes
	for _, leak := range []string{"hunter2", hex.EncodeToString([]byte("hunter2")), strings.ToUpper(hex.EncodeToString([]byte("hunter2"))),
		bytesOf, strings.ReplaceAll(bytesOf, " ", ", "), base64.StdEncoding.EncodeToString([]byte("hunter"))} {
		if strings.Contains(got, leak) {
			t.Errorf("the value got out as %q", leak)
		}
	}
	if !strings.Contains(got, hidden) {
		t.Errorf("nothing says %s", hidden)
	}
	if string(s.Reveal()) != text {
		t.Error("Reveal does not give the value")
	}
}

func TestMaster(t *testing.T) {
	key := bytes.Repeat([]byte{0xfb, 0xef}, 16)
	file := filepath.Join(t.TempDir(), "master.key")
	made, err := NewMasterFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewMasterFile(file); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second key file says %v, want fs.ErrExist", err)
	}
	env := func(text string) func(string) string {
		return func(name string) string {
			if name == MasterEnv {
				return text
			}
			return ""
		}
	}
	for _, text := range []string{hex.EncodeToString(key), base64.StdEncoding.EncodeToString(key) + "\n",
		base64.RawURLEncoding.EncodeToString(key), string(masterOf(NewSecret(key)).encodeKey())} {
		m, err := LoadMaster("/no/such/file", env(text))
		if err != nil || !bytes.Equal(m.Reveal(), key) {
			t.Errorf("a master key in the environment (%d characters): %v", len(text), err)
		}
	}
	m, err := LoadMaster(file, env(""))
	if err != nil || !bytes.Equal(m.Reveal(), made.Reveal()) {
		t.Errorf("a master key in a file: %v", err)
	}
	for _, text := range []string{"hunter2", hex.EncodeToString(key[:31]), strings.Repeat("A", 5000)} {
		if _, err := LoadMaster(file, env(text)); err == nil || strings.Contains(err.Error(), text) {
			t.Errorf("a bad master key in the environment says %v; want an error without it", err)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadMaster(file, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no key file says %v, want fs.ErrNotExist", err)
	}
}
