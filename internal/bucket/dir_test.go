package bucket_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nightferry/internal/bucket"
	"nightferry/internal/durable"
	"nightferry/internal/testbed"
)

// recorder records file operations, and refuses one kind of them.
type recorder struct {
	ops    []string
	refuse durable.OpKind
	err    error
}

func (r *recorder) Before(op durable.Op) error {
	name := op.Name
	if strings.HasPrefix(name, ".nightferry-tmp/") {
		name = "temp"
	}
	r.ops = append(r.ops, op.Kind.String()+" "+name)
	if r.err != nil && op.Kind == r.refuse {
		return r.err
	}
	return nil
}

// After a power cut at any point, this order leaves the old object or the new one: bytes are synced before a name
// refers to them, folders after.
func TestDirOrder(t *testing.T) {
	rec := &recorder{}
	s := testbed.OpenStore(t, testbed.FileURL(t.TempDir()), bucket.Options{Observer: rec})
	put(t, s, "packs/aa/x", "1")
	wanted := []string{"mkdir .nightferry-tmp", "syncdir .", "create temp", "write temp", "sync temp",
		"mkdir packs", "syncdir .", "mkdir packs/aa", "syncdir packs", "rename temp", "syncdir packs/aa"}
	if diff := cmp.Diff(wanted, rec.ops); diff != "" {
		t.Error(diff)
	}
	rec.ops = nil
	put(t, s, "packs/aa/x", "2")
	if diff := cmp.Diff([]string{"create temp", "write temp", "sync temp", "rename temp", "syncdir packs/aa"}, rec.ops); diff != "" {
		t.Error(diff)
	}
}

// full returns the system's error for a full disk.
func full() error {
	if runtime.GOOS == "windows" {
		return syscall.Errno(112) // ERROR_DISK_FULL
	}
	return syscall.ENOSPC
}

func TestDirErrors(t *testing.T) {
	for name, c := range map[string]struct {
		refuse durable.OpKind
		err    error
		kind   bucket.Kind
		text   string
	}{
		"full while writing": {durable.Write, full(), bucket.KindFull, "free some space"},
		"full while syncing": {durable.SyncFile, full(), bucket.KindFull, "free some space"},
		"not allowed":        {durable.Create, fs.ErrPermission, bucket.KindDenied, "read and write"},
		"disk fault":         {durable.SyncFile, syscall.EIO, bucket.KindIntegrity, "the disk reports errors"},
		"not renamed":        {durable.Rename, errors.New("odd"), bucket.KindOther, "odd"},
	} {
		t.Run(name, func(t *testing.T) {
			rec := &recorder{}
			s := testbed.OpenStore(t, testbed.FileURL(t.TempDir()), bucket.Options{Observer: rec})
			put(t, s, "k", "old")
			rec.refuse, rec.err = c.refuse, c.err
			_, err := s.Put(t.Context(), "k", bucket.Bytes([]byte("new")), bucket.Cond{})
			want(t, err, c.kind, nil, "put", "k")
			if !strings.Contains(err.Error(), c.text) {
				t.Errorf("%q does not say %q", err, c.text)
			}
			if got, _ := get(t, s, "k", 0, -1); got != "old" {
				t.Errorf("the object is %q now", got)
			}
		})
	}
}

// An unmounted volume must not look like an empty store.
func TestDirMissing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gone")
	_, err := bucket.Open(t.Context(), testbed.FileURL(dir), bucket.Options{})
	if bucket.KindOf(err) != bucket.KindNotExist || !strings.Contains(err.Error(), "is the volume mounted") {
		t.Error(err)
	}
	testbed.OpenStore(t, testbed.FileURL(dir), bucket.Options{Create: true})
}

// A file that another program cuts while it is read is an error, never a short body.
func TestDirCutWhileRead(t *testing.T) {
	dir := t.TempDir()
	s := openDir(t, dir)
	testbed.WriteObject(t, s, "k", noise(16<<20))
	r, _, err := s.Get(t.Context(), "k", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := os.Truncate(filepath.Join(dir, "k"), 5<<20); err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(io.Discard, r)
	want(t, err, bucket.KindIntegrity, io.ErrUnexpectedEOF, "get", "k")
}

// Links planted in the store lead nowhere.
func TestDirLinks(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "packs")); err != nil {
		t.Skipf("this account cannot make links: %v", err)
	}
	if fi, err := os.Lstat(filepath.Join(dir, "packs")); err != nil || fi.IsDir() {
		t.Skip("this system shows a link as a plain folder (Wine does): nothing can be told apart")
	}
	s := openDir(t, dir)
	if _, _, err := s.Get(t.Context(), "packs/secret", 0, -1); err == nil {
		t.Error("read through a link")
	}
	if _, err := s.Put(t.Context(), "packs/new", bucket.Bytes(nil), bucket.Cond{}); err == nil {
		t.Error("wrote through a link")
	}
	if err := s.Delete(t.Context(), "packs/secret"); err == nil {
		t.Error("deleted through a link")
	}
	left, err := os.ReadDir(outside)
	if err != nil || len(left) != 1 {
		t.Errorf("outside: %v %v", left, err)
	}
}

func TestURLs(t *testing.T) {
	for raw, text := range map[string]string{
		"":                                    "not the URL of a store",
		"/srv/store":                          "file:///DIR",
		"ftp://x/y":                           "not the URL of a store",
		"file://":                             "file:///DIR",
		"file:///x?y=z":                       "file:///DIR",
		"s3://":                               "s3://BUCKET",
		"s3://b/p?regoin=x":                   `unknown parameter "regoin"`,
		"s3://key:hunter2@b/p?region=x":       "credentials do not belong",
		"s3://b/../p?region=x":                "not a valid key",
		"s3://b?region=x&endpoint=h:1":        "https://HOST:PORT",
		"s3://b?endpoint=http://u:hunter2@h/": "https://HOST:PORT",
		"s3://b?X-Amz-Signature=hunter2":      "unknown parameter",
	} {
		_, err := bucket.Open(t.Context(), raw, bucket.Options{AccessKey: "a", SecretKey: "b"})
		if err == nil || !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("open %q: %v", raw, err)
		}
	}
}

func TestDirListSkipsStrangers(t *testing.T) {
	dir := t.TempDir()
	s := openDir(t, dir)
	put(t, s, "a", "1")
	for _, name := range []string{"ünïcode", "tilde~é"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := list(t, s, ""); !slices.Equal(got, []string{"a"}) {
		t.Error(got)
	}
}
