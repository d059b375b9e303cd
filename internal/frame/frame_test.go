package frame

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

type id [4]byte

// id has a text form for JSON, which CBOR must ignore.
func (i id) MarshalText() ([]byte, error) { return []byte("text"), nil }

type inner struct {
	_  struct{} `cbor:",toarray"`
	ID id       `json:"id"`
	N  uint32   `json:"n,omitempty"`
}

type sample struct {
	_     struct{} `cbor:",toarray"`
	ID    id       `json:"id"`
	Name  string   `json:"name,omitempty"`
	Size  int64    `json:"size"`
	Salt  []byte   `json:"salt,omitempty"`
	Inner []inner  `json:"inner"`
	On    bool     `json:"on"`
}

func TestEncodingIsAnArrayOfEveryField(t *testing.T) {
	// Six elements, each in its shortest form; json tags have no effect.
	const want = "6e66" + "74657374" + "0001" + "86" + "4401020304" + "60" + "20" + "40" + "81" + "8244000000000a" + "f5"
	got, err := Encode("test", 1, &sample{ID: id{1, 2, 3, 4}, Size: -1, Inner: []inner{{N: 10}}, On: true})
	if err != nil || hex.EncodeToString(got) != want {
		t.Fatalf("Encode = %x, %v, want %s", got, err, want)
	}
	var s sample
	if err := Decode("test", 1, 100, got, &s); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(sample{ID: id{1, 2, 3, 4}, Size: -1, Salt: []byte{}, Inner: []inner{{N: 10}}, On: true}, s, cmp.AllowUnexported(sample{}, inner{})); d != "" {
		t.Error(d)
	}
}

func TestNilAndEmptyHaveOneEncoding(t *testing.T) {
	a, err1 := Marshal(&sample{})
	b, err2 := Marshal(&sample{Salt: []byte{}, Inner: []inner{}})
	if err1 != nil || err2 != nil || !bytes.Equal(a, b) {
		t.Errorf("nil encodes as %x, empty as %x", a, b)
	}
}

// TestUnmarshalRefuses decodes valid CBOR for a sample that Marshal would
// have encoded differently.
func TestUnmarshalRefuses(t *testing.T) {
	const good = "86" + "4401020304" + "6161" + "01" + "4101" + "80" + "f4"
	var s sample
	if err := Unmarshal(unhex(t, good), &s); err != nil {
		t.Fatalf("the good one: %v", err)
	}
	for name, body := range map[string]string{
		"null for a byte string":        "86" + "4401020304" + "6161" + "01" + "f6" + "80" + "f4",
		"null for an array":             "86" + "4401020304" + "6161" + "01" + "4101" + "f6" + "f4",
		"undefined for a number":        "86" + "4401020304" + "6161" + "f7" + "4101" + "80" + "f4",
		"a short id":                    "86" + "43010203" + "6161" + "01" + "4101" + "80" + "f4",
		"a long id":                     "86" + "450102030405" + "6161" + "01" + "4101" + "80" + "f4",
		"an id as an array":             "86" + "8401020304" + "6161" + "01" + "4101" + "80" + "f4",
		"an id as text":                 "86" + "6461626364" + "6161" + "01" + "4101" + "80" + "f4",
		"text as bytes":                 "86" + "4401020304" + "4161" + "01" + "4101" + "80" + "f4",
		"text that is not UTF-8":        "86" + "4401020304" + "61ff" + "01" + "4101" + "80" + "f4",
		"a number in a longer form":     "86" + "4401020304" + "6161" + "1801" + "4101" + "80" + "f4",
		"a length in a longer form":     "86" + "4401020304" + "780161" + "01" + "4101" + "80" + "f4",
		"a float for a number":          "86" + "4401020304" + "6161" + "f93c00" + "4101" + "80" + "f4",
		"a number that overflows":       "86" + "4401020304" + "6161" + "1bffffffffffffffff" + "4101" + "80" + "f4",
		"a tag":                         "86" + "4401020304" + "6161" + "c101" + "4101" + "80" + "f4",
		"an array of indefinite length": "86" + "4401020304" + "6161" + "01" + "4101" + "9fff" + "f4",
		"a string in parts":             "86" + "4401020304" + "7f6161ff" + "01" + "4101" + "80" + "f4",
		"a map for the struct":          "a0",
		"a field too few":               "85" + "4401020304" + "6161" + "01" + "4101" + "80",
		"a field too many":              "87" + "4401020304" + "6161" + "01" + "4101" + "80" + "f4" + "00",
		"bytes after the end":           good + "00",
		"an end too early":              good[:len(good)-2],
		"nothing":                       "",
		"null":                          "f6",
	} {
		var s sample
		if err := Unmarshal(unhex(t, body), &s); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: error is %v, want ErrDamaged", name, err)
		}
	}
}

func TestUnmarshalRefusesDeepAndLong(t *testing.T) {
	long := append([]byte{0x9a, 0, 0x10, 0, 1}, bytes.Repeat([]byte{0}, MaxArray+1)...)
	var ns []uint8
	var deep any
	for name, err := range map[string]error{
		"an array above the bound":   Unmarshal(long, &ns),
		"nesting above the bound":    Unmarshal(bytes.Repeat([]byte{0x81}, 5000), &deep),
		"an array that is not there": Unmarshal([]byte{0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, &ns),
	} {
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: error is %v, want ErrDamaged", name, err)
		}
	}
}

func TestCheckHeader(t *testing.T) {
	good := append(Header("test", 2), 0xf6)
	if err := CheckHeader("test", 2, good); err != nil {
		t.Fatal(err)
	}
	if Kind(good) != "test" || Version(good) != 2 || Kind([]byte("nfpack")) != "" || Kind(good[1:]) != "" {
		t.Error("Kind or Version is wrong")
	}
	for name, b := range map[string][]byte{
		"another kind": Header("pack", 1), "no magic": []byte("xxtest\x00\x01"), "version 0": Header("test", 0),
		"too short": []byte("nftest\x00"), "nothing": nil,
	} {
		if err := CheckHeader("test", 2, b); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: error is %v, want ErrDamaged", name, err)
		}
	}
	var newer *NewerError
	if err := CheckHeader("test", 2, Header("test", 7)); !errors.As(err, &newer) || errors.Is(err, ErrDamaged) {
		t.Fatalf("a newer version: %v", err)
	}
	if d := cmp.Diff(&NewerError{Kind: "test", Version: 7, Supported: 2}, newer); d != "" {
		t.Error(d)
	}
	if s := newer.Error(); !strings.Contains(s, "7") || !strings.Contains(s, "2") {
		t.Errorf("%q does not name both versions", s)
	}
}

func TestDecodeRefusesMoreThanMax(t *testing.T) {
	b, err := Encode("test", 1, &sample{Name: strings.Repeat("x", 100)})
	if err != nil {
		t.Fatal(err)
	}
	var s sample
	if err := Decode("test", 1, len(b), b, &s); err != nil {
		t.Errorf("exactly max: %v", err)
	}
	if err := Decode("test", 1, len(b)-1, b, &s); !errors.Is(err, ErrDamaged) {
		t.Errorf("one more than max: %v", err)
	}
}

func samples() *rapid.Generator[sample] {
	return rapid.Custom(func(t *rapid.T) sample {
		s := sample{Name: rapid.String().Draw(t, "name"), Size: rapid.Int64().Draw(t, "size"), On: rapid.Bool().Draw(t, "on"),
			Salt: rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "salt")}
		copy(s.ID[:], rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "id"))
		for range rapid.IntRange(0, 40).Draw(t, "inner") {
			s.Inner = append(s.Inner, inner{N: rapid.Uint32().Draw(t, "n")})
		}
		return s
	})
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := samples().Draw(t, "sample")
		b, err := Encode("test", 1, &want)
		if err != nil {
			t.Fatal(err)
		}
		var got sample
		if err := Decode("test", 1, len(b), b, &got); err != nil {
			t.Fatal(err)
		}
		if again, err := Encode("test", 1, &got); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x comes back as %x, %v", b, again, err)
		}
	})
}

func unhex(t testing.TB, s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
