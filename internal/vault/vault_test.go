package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nightferry/internal/durable"
	"nightferry/internal/frame"
)

func start() time.Time { return time.Unix(1_700_000_000, 0) }

// log keeps audit records, and fails on demand.
type log struct {
	seen []Access
	fail error
}

func (l *log) audit(_ context.Context, a Access) error {
	if l.fail != nil {
		return l.fail
	}
	l.seen = append(l.seen, a)
	return nil
}

func (l *log) options() Options { return Options{Audit: l.audit, Now: start} }

func openDir(t *testing.T, dir string, o durable.Observer) *durable.Root {
	t.Helper()
	root, err := durable.Open(dir, durable.Options{Observer: o})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return root
}

// fresh makes a vault and opens it.
func fresh(t *testing.T) (*Vault, Master, *durable.Root, *log) {
	t.Helper()
	dir, m, l := openDir(t, t.TempDir(), nil), NewMaster(), &log{}
	if err := Create(t.Context(), dir, m); err != nil {
		t.Fatal(err)
	}
	v, err := Open(t.Context(), dir, m, l.options())
	if err != nil {
		t.Fatal(err)
	}
	return v, m, dir, l
}

func set(t *testing.T, v *Vault, name, value string) int {
	t.Helper()
	n, err := v.Set(t.Context(), name, []byte(value))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func wantValue(t *testing.T, v *Vault, name, want string) {
	t.Helper()
	s, _, err := v.Get(t.Context(), name, "test")
	if err != nil {
		t.Fatal(err)
	}
	if got := string(s.Reveal()); got != want {
		t.Errorf("%s is %q, want %q", name, got, want)
	}
}

func TestVersions(t *testing.T) {
	v, m, dir, l := fresh(t)
	if err := Create(t.Context(), dir, m); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second Create says %v, want fs.ErrExist", err)
	}
	if _, err := v.Rotate(t.Context(), "smtp", []byte("x")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("rotating what is not there says %v, want fs.ErrNotExist", err)
	}
	for i := 1; i <= 4; i++ {
		if got := set(t, v, "domain/apac/signing", fmt.Sprint("value ", i)); got != i {
			t.Errorf("version %d, want %d", got, i)
		}
	}
	set(t, v, "smtp", "mail")
	if n, err := v.Rotate(t.Context(), "smtp", []byte("mail 2")); n != 2 || err != nil {
		t.Errorf("Rotate: %d, %v", n, err)
	}
	// Users of the previous version can read it until it is pruned.
	if s, err := v.GetVersion(t.Context(), "domain/apac/signing", 3, "still in use"); err != nil || string(s.Reveal()) != "value 3" {
		t.Errorf("version 3: %q, %v", s.Reveal(), err)
	}
	if n, err := v.Prune(t.Context(), "domain/apac/signing", 2); n != 2 || err != nil {
		t.Errorf("Prune removed %d, %v; want 2", n, err)
	}
	if _, err := v.GetVersion(t.Context(), "domain/apac/signing", 1, ""); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a pruned version says %v, want fs.ErrNotExist", err)
	}
	v, err := Open(t.Context(), dir, m, l.options())
	if err != nil {
		t.Fatal(err)
	}
	wantValue(t, v, "domain/apac/signing", "value 4")
	list, err := v.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at := start().UTC()
	want := []Info{{"domain/apac/signing", []Version{{3, at}, {4, at}}}, {"smtp", []Version{{1, at}, {2, at}}}}
	if diff := cmp.Diff(want, list); diff != "" {
		t.Errorf("List (-want +got):\n%s", diff)
	}
	if err := v.Delete(t.Context(), "smtp"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := v.Get(t.Context(), "smtp", ""); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a deleted secret says %v, want fs.ErrNotExist", err)
	}
	for _, name := range []string{"", "/a", "a/", "a//b", "A", "a b", "../x\x00", strings.Repeat("a", MaxName+1)} {
		if _, err := v.Set(t.Context(), name, []byte("x")); err == nil {
			t.Errorf("name %q was accepted", name)
		}
	}
	for _, value := range [][]byte{nil, make([]byte, MaxValue+1)} {
		if _, err := v.Set(t.Context(), "a", value); err == nil {
			t.Errorf("a value of %d bytes was accepted", len(value))
		}
	}
}

// TestDamage flips a bit of every byte: once as a disk would, and once as an
// attacker who also corrects the checksum.
func TestDamage(t *testing.T) {
	v, m, dir, l := fresh(t)
	set(t, v, "s3", "secret key")
	set(t, v, "smtp", "password")
	path := filepath.Join(dir.Dir(), fileName)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(good, []byte("password")) {
		t.Fatal("a value lies in the vault as it is")
	}
	sum := len(good) - 32
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if _, err := parseFile(bad, m.keys); err == nil {
			t.Fatalf("a flipped bit in byte %d was not seen", i)
		}
		if i >= sum {
			continue
		}
		if _, err := parseFile(frame.AppendSum(bad[:sum]), m.keys); err == nil {
			t.Fatalf("a flipped bit in byte %d was not seen where the checksum had been mended", i)
		}
	}
	for _, size := range []int{0, 1, frame.HeaderSize, sum, len(good) - 1} {
		if _, err := parseFile(good[:size], m.keys); err == nil {
			t.Errorf("a vault cut to %d bytes was accepted", size)
		}
	}
	if err := os.WriteFile(path, good[:sum], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), dir, m, l.options()); !errors.Is(err, frame.ErrDamaged) {
		t.Errorf("opening a damaged vault says %v, want frame.ErrDamaged", err)
	}
	if _, _, err := v.Get(t.Context(), "s3", ""); !errors.Is(err, frame.ErrDamaged) {
		t.Errorf("reading a vault damaged meanwhile says %v, want frame.ErrDamaged", err)
	}
}

// TestMovedValues simulates a bug, or an attacker with the data key but
// without the values: the binding of entries to name and version must detect
// it alone.
func TestMovedValues(t *testing.T) {
	for name, move := range map[string]func(a, b *entry){
		"to another name":    func(a, b *entry) { a.Sealed, b.Sealed = b.Sealed, a.Sealed },
		"to another version": func(a, _ *entry) { a.Version++ },
	} {
		t.Run(name, func(t *testing.T) {
			v, m, dir, _ := fresh(t)
			set(t, v, "domain/apac/signing", "apac's")
			set(t, v, "domain/emea/signing", "emea's")
			c, err := v.loadFile()
			if err != nil {
				t.Fatal(err)
			}
			move(&c.Entries[0], &c.Entries[1])
			if err := c.saveFile(dir); err != nil {
				t.Fatal(err)
			}
			if _, _, err := v.Get(t.Context(), "domain/apac/signing", ""); !errors.Is(err, frame.ErrDamaged) {
				t.Errorf("Get says %v, want frame.ErrDamaged", err)
			}
			if err := v.Rekey(t.Context(), NewMaster()); !errors.Is(err, frame.ErrDamaged) {
				t.Errorf("Rekey says %v, want frame.ErrDamaged: it would lose what it cannot read", err)
			}
			// The seal over all entries detects a removed one.
			c, err = v.loadFile()
			if err != nil {
				t.Fatal(err)
			}
			c.Entries = c.Entries[1:]
			b, err := frame.Encode(kind, version, c)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := parseFile(frame.AppendSum(b), m.keys); !errors.Is(err, frame.ErrDamaged) {
				t.Errorf("a vault with an entry taken out says %v, want frame.ErrDamaged", err)
			}
		})
	}
}

func TestWrongMaster(t *testing.T) {
	_, _, dir, l := fresh(t)
	if _, err := Open(t.Context(), dir, NewMaster(), l.options()); !errors.Is(err, ErrMaster) {
		t.Errorf("Open says %v, want ErrMaster", err)
	}
}

// TestNothingUnrecorded lets each call fail at its audit record: the call
// must return no value and change nothing. It also checks that the record
// comes first.
func TestNothingUnrecorded(t *testing.T) {
	v, m, dir, l := fresh(t)
	for _, o := range []Options{{Now: start}, {Audit: l.audit}} {
		if _, err := Open(t.Context(), dir, m, o); err == nil {
			t.Error("a vault opened without an audit hook or a clock")
		}
	}
	set(t, v, "s3", "one")
	set(t, v, "s3", "two")
	path := filepath.Join(dir.Dir(), fileName)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	calls := []struct {
		want Access
		call func() (any, error)
	}{
		{Access{Op: OpOpen}, func() (any, error) { v, err := Open(ctx, dir, m, l.options()); return v != nil, err }},
		{Access{Op: OpGet, Name: "s3", Version: 2, Purpose: "sign"}, func() (any, error) {
			s, n, err := v.Get(ctx, "s3", "sign")
			return len(s.Reveal()) + n, err
		}},
		{Access{Op: OpGet, Name: "s3", Version: 1, Purpose: "old"}, func() (any, error) {
			s, err := v.GetVersion(ctx, "s3", 1, "old")
			return len(s.Reveal()), err
		}},
		{Access{Op: OpList}, func() (any, error) { list, err := v.List(ctx); return len(list), err }},
		{Access{Op: OpSet, Name: "s3", Version: 3}, func() (any, error) { return v.Set(ctx, "s3", []byte("three")) }},
		{Access{Op: OpRotate, Name: "s3", Version: 4}, func() (any, error) { return v.Rotate(ctx, "s3", []byte("four")) }},
		{Access{Op: OpPrune, Name: "s3", Version: 4}, func() (any, error) { return v.Prune(ctx, "s3", 1) }},
		{Access{Op: OpDelete, Name: "s3", Version: 4}, func() (any, error) { return 0, v.Delete(ctx, "s3") }},
		{Access{Op: OpRekey}, func() (any, error) { return 0, v.Rekey(ctx, NewMaster()) }},
	}
	l.fail = errors.New("the ledger's disk is full")
	for _, c := range calls {
		got, err := c.call()
		if !errors.Is(err, ErrAudit) || !errors.Is(err, l.fail) {
			t.Errorf("%s says %v, want ErrAudit with its cause", c.want.Op, err)
		}
		if got != 0 && got != false {
			t.Errorf("%s answered %v without a record", c.want.Op, got)
		}
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
			t.Fatalf("%s changed the vault without a record (%v)", c.want.Op, err)
		}
	}
	l.fail, l.seen = nil, nil
	var want []Access
	for _, c := range calls {
		if _, err := c.call(); err != nil {
			t.Errorf("%s: %v", c.want.Op, err)
		}
		c.want.At = start().UTC()
		want = append(want, c.want)
	}
	if diff := cmp.Diff(want, l.seen); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	l.seen = nil
	if _, _, err := v.Get(ctx, "no/such", "curious"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Get says %v, want fs.ErrNotExist", err)
	}
	if diff := cmp.Diff([]Access{{Op: OpGet, Name: "no/such", Purpose: "curious", At: start().UTC()}}, l.seen); diff != "" {
		t.Errorf("asking for what is not there leaves no record (-want +got):\n%s", diff)
	}
}
