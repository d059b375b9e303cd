package vault

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"nightferry/internal/durable"
)

var errCrash = errors.New("crashed")

// crash allows a number of changes and fails all later ones.
type crash struct{ left int }

func (c *crash) Before(durable.Op) error {
	if c.left == 0 {
		return errCrash
	}
	c.left--
	return nil
}

// TestRekeyCrash dies before each change that a rekey makes to the disk. One
// of the two master keys must open the remaining vault, with every value in
// it. The process that saw the failure must continue to work as well.
func TestRekeyCrash(t *testing.T) {
	done := false
	for n := 0; !done; n++ {
		if n > 50 {
			t.Fatal("a rekey takes more than 50 changes")
		}
		dir := t.TempDir()
		first, second, l := NewMaster(), NewMaster(), &log{}
		if err := Create(t.Context(), openDir(t, dir, nil), first); err != nil {
			t.Fatal(err)
		}
		c := &crash{left: -1}
		v, err := Open(t.Context(), openDir(t, dir, c), first, l.options())
		if err != nil {
			t.Fatal(err)
		}
		set(t, v, "ca", "old value")
		set(t, v, "ca", "the authority's key")
		c.left = n
		err = v.Rekey(t.Context(), second)
		if done = err == nil; !done && !errors.Is(err, errCrash) {
			t.Fatalf("crash before change %d: %v", n, err)
		}
		wantValue(t, v, "ca", "the authority's key")
		opened := 0
		for _, m := range []Master{first, second} {
			again, err := Open(t.Context(), openDir(t, dir, nil), m, l.options())
			if errors.Is(err, ErrMaster) {
				continue
			}
			if err != nil {
				t.Fatalf("crash before change %d: %v", n, err)
			}
			opened++
			wantValue(t, again, "ca", "the authority's key")
			if s, err := again.GetVersion(t.Context(), "ca", 1, ""); err != nil || string(s.Reveal()) != "old value" {
				t.Errorf("crash before change %d: version 1 is %q, %v", n, s.Reveal(), err)
			}
		}
		if opened != 1 {
			t.Errorf("crash before change %d: %d of the two master keys open the vault, want exactly one", n, opened)
		}
	}
}

// TestRekeyFile creates each state in which a crash can leave key file and
// vault, and completes the change.
func TestRekeyFile(t *testing.T) {
	steps := []string{"before", "new key file", "vault rekeyed", "done"}
	for crashed, name := range steps {
		t.Run(name, func(t *testing.T) {
			dir := openDir(t, t.TempDir(), nil)
			path, l := filepath.Join(dir.Dir(), "master.key"), &log{}
			m, err := NewMasterFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := Create(t.Context(), dir, m); err != nil {
				t.Fatal(err)
			}
			v := load(t, dir, path, l)
			set(t, v, "smtp", "password")
			if crashed >= 1 {
				next, err := NewMasterFile(path + nextSuffix)
				if err != nil {
					t.Fatal(err)
				}
				if crashed >= 2 {
					if err := v.Rekey(t.Context(), next); err != nil {
						t.Fatal(err)
					}
				}
				if crashed >= 3 {
					if err := replaceKey(path); err != nil {
						t.Fatal(err)
					}
				}
			}
			v = load(t, dir, path, l) // as in a process started after the crash
			wantValue(t, v, "smtp", "password")
			if err := v.RekeyFile(t.Context(), path); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(path + nextSuffix); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the new key file is still there: %v", err)
			}
			wantValue(t, v, "smtp", "password")
			wantValue(t, load(t, dir, path, l), "smtp", "password")
			if _, err := Open(t.Context(), dir, m, l.options()); !errors.Is(err, ErrMaster) {
				t.Errorf("the old master key: %v, want ErrMaster", err)
			}
		})
	}
}

func load(t *testing.T, dir *durable.Root, path string, l *log) *Vault {
	t.Helper()
	m, err := LoadMaster(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	v, err := Open(t.Context(), dir, m, l.options())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestProcesses lets four processes concurrently add versions of one shared
// name and of their own names: none is lost, and no number is given twice.
func TestProcesses(t *testing.T) {
	const children, each = 4, 15
	if dir := os.Getenv("NIGHTFERRY_TEST_VAULT"); dir != "" {
		v := load(t, openDir(t, dir, nil), filepath.Join(dir, "master.key"), &log{})
		for i := range each {
			set(t, v, "shared", fmt.Sprint(os.Getpid(), " ", i))
			set(t, v, fmt.Sprintf("own/%d", os.Getpid()), "x")
		}
		return
	}
	dir := openDir(t, t.TempDir(), nil)
	path := filepath.Join(dir.Dir(), "master.key")
	m, err := NewMasterFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := Create(t.Context(), dir, m); err != nil {
		t.Fatal(err)
	}
	runChildren(t, children, "NIGHTFERRY_TEST_VAULT="+dir.Dir())
	list, err := load(t, dir, path, &log{}).List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != children+1 {
		t.Fatalf("%d names, want %d", len(list), children+1)
	}
	for _, info := range list {
		want := each
		if info.Name == "shared" {
			want *= children
		}
		if got := len(info.Versions); got != want || info.Versions[got-1].Version != want {
			t.Errorf("%s has %d versions, the last is %d; want %d", info.Name, got, info.Versions[got-1].Version, want)
		}
	}
}
