package seal

import (
	"bytes"
	"crypto/fips140"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"nightferry/internal/digest"
)

func testKeys(t *testing.T, keyByte, repoByte byte) *Keys {
	t.Helper()
	k, err := NewKeys(bytes.Repeat([]byte{keyByte}, KeySize), [16]byte{repoByte})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func testObject(t *testing.T, k *Keys, kind string, salt []byte) *Object {
	t.Helper()
	o, err := k.Object(kind, salt)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

var salt = bytes.Repeat([]byte{7}, SaltSize)

func TestSealOpens(t *testing.T) {
	o := testObject(t, testKeys(t, 1, 2), "pack", salt)
	part := []byte("a driver")
	sealed := o.Seal([]byte("before"), part, 48)
	if !bytes.HasPrefix(sealed, []byte("before")) || len(sealed) != len("before")+len(part)+o.Overhead() {
		t.Fatalf("sealed %d bytes to %d", len(part), len(sealed))
	}
	sealed = sealed[len("before"):]
	if bytes.Contains(sealed, part) {
		t.Error("the sealed part shows its content")
	}
	got, err := o.Open([]byte("x"), sealed, 48)
	if err != nil || string(got) != "xa driver" {
		t.Errorf("Open = %q, %v", got, err)
	}
}

// TestOpenRefuses checks that a part opens only unaltered, and only with its
// own key, repository, kind, salt and offset.
func TestOpenRefuses(t *testing.T) {
	k := testKeys(t, 1, 2)
	o := testObject(t, k, "pack", salt)
	sealed := o.Seal(nil, []byte("a driver"), 48)
	other := bytes.Repeat([]byte{8}, SaltSize)
	for name, c := range map[string]struct {
		o      *Object
		offset uint64
		sealed []byte
	}{
		"another key":        {testObject(t, testKeys(t, 9, 2), "pack", salt), 48, sealed},
		"another repository": {testObject(t, testKeys(t, 1, 9), "pack", salt), 48, sealed},
		"another kind":       {testObject(t, k, "segm", salt), 48, sealed},
		"another salt":       {testObject(t, k, "pack", other), 48, sealed},
		"another offset":     {o, 49, sealed},
		"cut short":          {o, 48, sealed[:len(sealed)-1]},
		"shorter than a tag": {o, 48, sealed[:3]},
		"nothing":            {o, 48, nil},
	} {
		if got, err := c.o.Open(nil, c.sealed, c.offset); !errors.Is(err, ErrOpen) || got != nil {
			t.Errorf("%s: Open = %q, %v, want ErrOpen", name, got, err)
		}
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := o.Open(nil, bad, 48); !errors.Is(err, ErrOpen) {
			t.Fatalf("byte %d altered: %v, want ErrOpen", i, err)
		}
	}
}

func TestPlainPassesThrough(t *testing.T) {
	var k *Keys
	o, err := k.Object("pack", nil)
	if o != nil || err != nil {
		t.Fatalf("Object = %v, %v", o, err)
	}
	if k.Cipher() != Plain || k.NewSalt() != nil || k.Check() != nil || k.Name("driver") != "driver" || o.Overhead() != 0 {
		t.Error("a plain repository hides something")
	}
	if k.ChunkID([]byte("x")) != digest.Of([]byte("x")) {
		t.Error("a plain chunk id is not the SHA-256")
	}
	if b := o.Seal([]byte("a"), []byte("b"), 0); string(b) != "ab" {
		t.Errorf("Seal = %q", b)
	}
	if b, err := o.Open([]byte("a"), []byte("b"), 0); string(b) != "ab" || err != nil {
		t.Errorf("Open = %q, %v", b, err)
	}
	if _, err := k.Object("pack", salt); err == nil {
		t.Error("a sealed object was taken in a plain repository")
	}
}

func TestKeysRefuse(t *testing.T) {
	for _, n := range []int{0, KeySize - 1, KeySize + 1} {
		if _, err := NewKeys(make([]byte, n), [16]byte{}); err == nil {
			t.Errorf("a key of %d bytes was taken", n)
		}
	}
	for _, n := range []int{0, SaltSize - 1, SaltSize + 1} {
		if _, err := testKeys(t, 1, 2).Object("pack", make([]byte, n)); err == nil {
			t.Errorf("a salt of %d bytes was taken", n)
		}
	}
}

func TestNamesTellNothing(t *testing.T) {
	k, other, elsewhere := testKeys(t, 1, 2), testKeys(t, 3, 2), testKeys(t, 1, 4)
	name := k.Name("driver")
	if len(name) != 32 || strings.Contains(name, "driver") || name != k.Name("driver") || name == k.Name("patch") {
		t.Errorf("Name = %q", name)
	}
	if name == other.Name("driver") || name == elsewhere.Name("driver") {
		t.Error("the name is the same under another key or in another repository")
	}
	id := k.ChunkID([]byte("content"))
	if id == digest.Of([]byte("content")) || id == other.ChunkID([]byte("content")) || id == elsewhere.ChunkID([]byte("content")) {
		t.Error("the chunk id can be computed without the key")
	}
	if bytes.Equal(k.Check(), other.Check()) || bytes.Equal(k.Check(), elsewhere.Check()) || len(k.Check()) != 16 {
		t.Error("the check does not tell keys apart")
	}
	if a, b := k.NewSalt(), k.NewSalt(); len(a) != SaltSize || bytes.Equal(a, b) {
		t.Error("salts repeat")
	}
	if k.Cipher() != AES256GCM {
		t.Errorf("Cipher = %d", k.Cipher())
	}
}

// hkdf32 computes 32 bytes of RFC 5869 without the library: one block of
// expansion.
func hkdf32(key, salt []byte, info string) []byte {
	if salt == nil {
		salt = make([]byte, 32)
	}
	mac := func(key, data []byte) []byte {
		m := hmac.New(sha256.New, key)
		m.Write(data)
		return m.Sum(nil)
	}
	return mac(mac(salt, key), append([]byte(info), 1))
}

// TestDerivationIsFrozen computes format 1's derivations independently. It
// compares them, and one sealed part, with the values of the frozen format.
func TestDerivationIsFrozen(t *testing.T) {
	k := testKeys(t, 1, 2)
	master, repo := bytes.Repeat([]byte{1}, KeySize), string(append([]byte{2}, make([]byte, 15)...))
	if !bytes.Equal(k.chunkID, hkdf32(master, nil, "nightferry 1 chunk id"+repo)) {
		t.Error("the chunk-id key is not HKDF-SHA-256 as docs/format/README.md says")
	}
	if !bytes.Equal(k.name, hkdf32(master, nil, "nightferry 1 name"+repo)) {
		t.Error("the name key is not HKDF-SHA-256 as docs/format/README.md says")
	}
	if object, err := k.derive(salt, "object pack"); err != nil || !bytes.Equal(object, hkdf32(master, salt, "nightferry 1 object pack"+repo)) {
		t.Error("an object's key is not HKDF-SHA-256 as docs/format/README.md says")
	}
	for what, c := range map[string]struct{ got, want string }{
		"name":   {k.Name("driver"), frozenName},
		"id":     {k.ChunkID([]byte("abc")).String(), frozenID},
		"check":  {hex.EncodeToString(k.Check()), frozenCheck},
		"sealed": {hex.EncodeToString(testObject(t, k, "pack", salt).Seal(nil, []byte("abc"), 48)), frozenSealed},
	} {
		if c.got != c.want {
			t.Errorf("%s = %s, format 1 has %s", what, c.got, c.want)
		}
	}
}

// TestFIPS runs this room's tests again in Go's FIPS 140-3 mode.
func TestFIPS(t *testing.T) {
	const env = "NIGHTFERRY_TEST_FIPS"
	if os.Getenv(env) != "" {
		if !fips140.Enabled() {
			t.Fatal("GODEBUG=fips140=on has not switched it on")
		}
		return
	}
	cmd := exec.Command(os.Args[0], "-test.v", "-test.run=^Test")
	cmd.Env = append(os.Environ(), "GODEBUG=fips140=on", env+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestFIPS") {
		t.Errorf("with GODEBUG=fips140=on: %v\n%s", err, out)
	}
}

func BenchmarkChunkID(b *testing.B) {
	k, err := NewKeys(make([]byte, KeySize), [16]byte{})
	if err != nil {
		b.Fatal(err)
	}
	chunk := make([]byte, 128<<10)
	b.SetBytes(int64(len(chunk)))
	b.ReportAllocs()
	for b.Loop() {
		k.ChunkID(chunk)
	}
}

func BenchmarkOpen(b *testing.B) {
	k, err := NewKeys(make([]byte, KeySize), [16]byte{})
	if err != nil {
		b.Fatal(err)
	}
	o, err := k.Object("pack", salt)
	if err != nil {
		b.Fatal(err)
	}
	sealed := o.Seal(nil, make([]byte, 1<<20), 48)
	buf := make([]byte, 0, 1<<20)
	b.SetBytes(1 << 20)
	for b.Loop() {
		if _, err := o.Open(buf, sealed, 48); err != nil {
			b.Fatal(err)
		}
	}
}
