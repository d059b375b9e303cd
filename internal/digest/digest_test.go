package digest

import (
	"encoding/json"
	"strings"
	"testing"
)

// The SHA-256 of "abc", from FIPS 180-4's examples.
const abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

func TestDigestIsPlainSHA256(t *testing.T) {
	if got := Of([]byte("abc")).String(); got != abc {
		t.Errorf("Of(abc) = %s, want %s", got, abc)
	}
	if got := Of([]byte("abc")).Short(); got != abc[:12] {
		t.Errorf("Short = %s, want %s", got, abc[:12])
	}
}

func TestParse(t *testing.T) {
	want := Of([]byte("abc"))
	for _, s := range []string{abc, strings.ToUpper(abc)} {
		if got, err := Parse(s); err != nil || got != want {
			t.Errorf("Parse(%q) = %s, %v", s, got, err)
		}
	}
	for _, s := range []string{"", abc[:63], abc + "0", abc[:63] + "g", strings.Repeat("é", 32)} {
		if got, err := Parse(s); err == nil || !got.IsZero() {
			t.Errorf("Parse(%q) = %s, %v, want an error and the zero digest", s, got, err)
		}
	}
}

func TestJSONIsHexadecimal(t *testing.T) {
	b, err := json.Marshal(Of([]byte("abc")))
	if err != nil || string(b) != `"`+abc+`"` {
		t.Fatalf("json = %s, %v", b, err)
	}
	var d Digest
	if err := json.Unmarshal(b, &d); err != nil || d != Of([]byte("abc")) {
		t.Errorf("from json: %s, %v", d, err)
	}
	if err := json.Unmarshal([]byte(`"12"`), &d); err == nil {
		t.Error("a short digest was read from JSON")
	}
}

func TestCompare(t *testing.T) {
	a, b := Digest{0: 1}, Digest{0: 1, 31: 1}
	if a.Compare(b) >= 0 || b.Compare(a) <= 0 || a.Compare(a) != 0 {
		t.Error("digests are not ordered by their bytes")
	}
	if !(Digest{}).IsZero() || b.IsZero() {
		t.Error("IsZero is wrong")
	}
}
