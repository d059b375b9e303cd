package halt

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// golden reads an artefact of format 1 as it was written when the format was
// frozen. These files never change: a program that cannot read them can read no
// bucket.
func golden(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "format1", name+".hex"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return b
}

// needSeeds fails a fuzz test whose committed seeds are missing: without seeds it would pass without testing anything.
func needSeeds(f *testing.F) {
	f.Helper()
	seeds, err := filepath.Glob(filepath.Join("testdata", "fuzz", f.Name(), "*"))
	if err != nil || len(seeds) == 0 {
		f.Fatalf("testdata/fuzz/%s holds no seeds: restore them from the repository (%v)", f.Name(), err)
	}
}

func TestGolden(t *testing.T) {
	b := golden(t, "halt")
	got, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(orders(), got, equal...); d != "" {
		t.Error(d)
	}
	if again, err := orders().Encode(); err != nil || !bytes.Equal(again, b) {
		t.Errorf("encodes as %x, %v", again, err)
	}
}

func FuzzDecode(f *testing.F) {
	needSeeds(f)
	f.Add(golden(f, "halt"))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := Decode(b)
		if err != nil {
			return
		}
		if again, err := o.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x comes back as %x, %v", b, again, err)
		}
		// Every subject of an order is stopped, by that order or an earlier one.
		for _, a := range o.Active {
			s := Subject{Region: a.Value, Domain: a.Value, Site: a.Value, Channel: a.Value}
			if o.Find(s) == nil {
				t.Fatalf("%+v stops nobody", a)
			}
		}
	})
}
