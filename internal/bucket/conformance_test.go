package bucket_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nightferry/internal/bucket"
	"nightferry/internal/digest"
	"nightferry/internal/s3test"
	"nightferry/internal/testbed"
)

// TestConformance checks that every kind of store keeps the same promises, so that code for one works on all.
func TestConformance(t *testing.T) {
	stores := map[string]func(t *testing.T) bucket.Store{
		"directory": func(t *testing.T) bucket.Store { return openDir(t, t.TempDir()) },
		"limited": func(t *testing.T) bucket.Store {
			return bucket.Limit(openDir(t, t.TempDir()), 1<<40) // the wrapper changes only the timing
		},
		"versitygw": func(t *testing.T) bucket.Store { return s3test.S3(t).Open(t) },
		"prefix": func(t *testing.T) bucket.Store {
			b := s3test.S3(t)
			other := b.Open(t)
			for _, k := range []string{"a", "pre/fix.", "pre/fiy/a", "z"} { // neighbours that must never be seen
				put(t, other, k, "other")
			}
			return testbed.OpenStore(t, b.URL("pre/fix"), b.Options())
		},
		"minio": func(t *testing.T) bucket.Store { return s3test.MinIO(t).Open(t) },
	}
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			for _, c := range conformance {
				t.Run(c.name, func(t *testing.T) { c.run(t, s) })
			}
		})
	}
}

var conformance = []struct {
	name string
	run  func(*testing.T, bucket.Store)
}{
	{"EmptyList", func(t *testing.T, s bucket.Store) {
		if got := list(t, s, ""); len(got) != 0 {
			t.Fatalf("a new store lists %v", got)
		}
	}},
	{"PutGet", testPutGet},
	{"Ranges", testRanges},
	{"Absent", testAbsent},
	{"Conditions", testConditions},
	{"RaceForAbsent", testRaceForAbsent},
	{"RaceForSwap", testRaceForSwap},
	{"WrongChecksum", testWrongChecksum},
	{"ShortBody", testShortBody},
	{"ListOrder", testListOrder},
	{"ListMany", testListMany},
	{"Delete", testDelete},
	{"Large", testLarge},
	{"BadKeys", testBadKeys},
	{"Cancel", testCancel},
	{"Concurrent", testConcurrent},
}

func openDir(t testing.TB, dir string) bucket.Store {
	t.Helper()
	return testbed.OpenStore(t, testbed.FileURL(dir), bucket.Options{})
}

func put(t testing.TB, s bucket.Store, key, body string) bucket.Info {
	t.Helper()
	info, err := s.Put(t.Context(), key, bucket.Bytes([]byte(body)), bucket.Cond{})
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func get(t testing.TB, s bucket.Store, key string, off, n int64) (string, bucket.Info) {
	t.Helper()
	r, info, err := s.Get(t.Context(), key, off, n)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b), info
}

func list(t testing.TB, s bucket.Store, prefix string) []string {
	t.Helper()
	var keys []string
	if err := s.List(t.Context(), prefix, func(i bucket.Info) error {
		keys = append(keys, i.Key)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return keys
}

// want checks an error's kind, its match with errors.Is, and that its text names the act and the key.
func want(t testing.TB, err error, kind bucket.Kind, is error, op, key string) {
	t.Helper()
	var e *bucket.Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want a *bucket.Error", err)
	}
	if e.Kind != kind || e.Op != op || e.Key != key || (is != nil && !errors.Is(err, is)) {
		t.Fatalf("got %#v (%v), want kind %v, %s %s", e, err, kind, op, key)
	}
}

func testPutGet(t *testing.T, s bucket.Store) {
	before := time.Now().Add(-2 * time.Second)
	for _, body := range []string{"", "x", "hello, night"} {
		sent := put(t, s, "dir/obj", body)
		got, info := get(t, s, "dir/obj", 0, -1)
		if got != body || info.Size != int64(len(body)) || info.Key != "dir/obj" {
			t.Errorf("got %q %+v, want %q", got, info, body)
		}
		if sent.ETag == "" || info.ETag != sent.ETag || sent.Size != int64(len(body)) {
			t.Errorf("put answers %+v, get %+v", sent, info)
		}
		for _, d := range []time.Time{sent.Date, info.Date, sent.Modified, info.Modified} {
			if d.Before(before) || d.After(time.Now().Add(2*time.Second)) {
				t.Errorf("a date of %v in %+v, %+v", d, sent, info)
			}
		}
	}
	if a, b := put(t, s, "dir/obj", "a"), put(t, s, "dir/obj", "b"); a.ETag == b.ETag {
		t.Error("two contents, one ETag")
	}
}

func testRanges(t *testing.T, s bucket.Store) {
	put(t, s, "r", "0123456789")
	put(t, s, "empty", "")
	for _, c := range []struct {
		key    string
		off, n int64
		want   string
	}{
		{"r", 0, 1, "0"}, {"r", 0, 10, "0123456789"}, {"r", 3, 4, "3456"}, {"r", 9, 1, "9"}, {"r", 4, -1, "456789"},
		{"r", -3, -1, "789"}, {"r", -3, 0, "789"}, {"r", -10, -1, "0123456789"}, {"r", -100, -1, "0123456789"},
		{"empty", 0, -1, ""}, {"empty", -5, -1, ""},
	} {
		got, info := get(t, s, c.key, c.off, c.n)
		if wantSize := int64(10); got != c.want || (c.key == "r" && info.Size != wantSize) {
			t.Errorf("get %s %d %d: %q, size %d", c.key, c.off, c.n, got, info.Size)
		}
	}
	// Ranges that exceed the object are never served short.
	for _, c := range [][2]int64{{10, 1}, {10, -1}, {5, 6}, {0, 11}, {1 << 40, 5}} {
		_, _, err := s.Get(t.Context(), "r", c[0], c[1])
		want(t, err, bucket.KindIntegrity, nil, "get", "r")
	}
	_, _, err := s.Get(t.Context(), "r", 2, 0)
	want(t, err, bucket.KindOther, nil, "get", "r")
}

func testAbsent(t *testing.T, s bucket.Store) {
	put(t, s, "abs/dir/x", "x")
	for _, key := range []string{"nowhere", "no/where", "abs", "abs/dir", "abs/dir/xx"} {
		_, _, err := s.Get(t.Context(), key, 0, -1)
		want(t, err, bucket.KindNotExist, fs.ErrNotExist, "get", key)
		_, _, err = s.Get(t.Context(), key, 5, 5)
		want(t, err, bucket.KindNotExist, fs.ErrNotExist, "get", key)
	}
}

func testConditions(t *testing.T, s bucket.Store) {
	ctx := t.Context()
	first, err := s.Put(ctx, "cond", bucket.Bytes([]byte("1")), bucket.Cond{Absent: true})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Put(ctx, "cond", bucket.Bytes([]byte("2")), bucket.Cond{Absent: true})
	want(t, err, bucket.KindPrecondition, fs.ErrExist, "put", "cond")
	second, err := s.Put(ctx, "cond", bucket.Bytes([]byte("2")), bucket.Cond{ETag: first.ETag})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Put(ctx, "cond", bucket.Bytes([]byte("3")), bucket.Cond{ETag: first.ETag})
	want(t, err, bucket.KindPrecondition, fs.ErrExist, "put", "cond")
	got, info := get(t, s, "cond", 0, -1)
	if got != "2" || info.ETag != second.ETag {
		t.Errorf("after two good and two refused writes: %q %+v", got, info)
	}
	_, err = s.Put(ctx, "cond-none", bucket.Bytes([]byte("1")), bucket.Cond{ETag: first.ETag})
	want(t, err, bucket.KindPrecondition, fs.ErrExist, "put", "cond-none")
	if got := list(t, s, "cond"); !slices.Equal(got, []string{"cond"}) {
		t.Errorf("refused writes left %v", got)
	}
}

const racers = 16

// race runs f for each racer at once and returns how many succeeded. All others must have received a failed
// condition.
func race(t *testing.T, f func(i int) error) int {
	t.Helper()
	var wins atomic.Int32
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range racers {
		wg.Go(func() {
			<-start
			switch err := f(i); {
			case err == nil:
				wins.Add(1)
			case !errors.Is(err, fs.ErrExist):
				t.Error(err)
			}
		})
	}
	close(start)
	wg.Wait()
	return int(wins.Load())
}

func testRaceForAbsent(t *testing.T, s bucket.Store) {
	for round := range 5 {
		key := fmt.Sprintf("race/absent-%d", round)
		if wins := race(t, func(i int) error {
			_, err := s.Put(t.Context(), key, bucket.Bytes(fmt.Appendf(nil, "by %d", i)), bucket.Cond{Absent: true})
			return err
		}); wins != 1 {
			t.Fatalf("%d of %d created the same object", wins, racers)
		}
	}
}

func testRaceForSwap(t *testing.T, s bucket.Store) {
	tag := put(t, s, "race/swap", "start").ETag
	for round := range 5 {
		var mu sync.Mutex
		next := ""
		if wins := race(t, func(i int) error {
			info, err := s.Put(t.Context(), "race/swap", bucket.Bytes(fmt.Appendf(nil, "round %d by %d", round, i)), bucket.Cond{ETag: tag})
			if err == nil {
				mu.Lock()
				next = info.ETag
				mu.Unlock()
			}
			return err
		}); wins != 1 {
			t.Fatalf("%d of %d swapped the same object", wins, racers)
		}
		if _, info := get(t, s, "race/swap", 0, -1); info.ETag != next {
			t.Fatalf("the winner was told %s, the object is %s", next, info.ETag)
		}
		tag = next
	}
}

func testWrongChecksum(t *testing.T, s bucket.Store) {
	body := bucket.Bytes([]byte("as it should be"))
	body.R = bytes.NewReader([]byte("as it was flip!"))
	_, err := s.Put(t.Context(), "sum", body, bucket.Cond{})
	want(t, err, bucket.KindIntegrity, nil, "put", "sum")
	if _, _, err := s.Get(t.Context(), "sum", 0, -1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a refused body was stored: %v", err)
	}
}

func testShortBody(t *testing.T, s bucket.Store) {
	body := bucket.Bytes([]byte("short"))
	body.Size = 9
	if _, err := s.Put(t.Context(), "short", body, bucket.Cond{}); err == nil {
		t.Error("a body of 5 bytes passed as 9")
	}
	if _, _, err := s.Get(t.Context(), "short", 0, -1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a short body was stored: %v", err)
	}
}

func testListOrder(t *testing.T, s bucket.Store) {
	// A folder sorts as if its name ended in a slash: "a-" < "a.b" < "a/…" < "a0".
	keys := []string{"lo/a-", "lo/a.b", "lo/a/1", "lo/a/2/3", "lo/a0", "lo/b"}
	for _, i := range rand.Perm(len(keys)) {
		put(t, s, keys[i], keys[i])
	}
	for prefix, wanted := range map[string][]string{"lo/": keys, "lo/a": keys[:5], "lo/a/": keys[2:4], "lo/a/2": keys[3:4], "lo/c": nil, "lp/": nil} {
		if diff := cmp.Diff(wanted, list(t, s, prefix)); diff != "" {
			t.Errorf("list %s: %s", prefix, diff)
		}
	}
	stop := errors.New("enough")
	n := 0
	if err := s.List(t.Context(), "lo/", func(i bucket.Info) error {
		if n++; i.Size != int64(len(i.Key)) || i.Modified.IsZero() || i.Date.IsZero() {
			t.Errorf("listed as %+v", i)
		}
		if n == 3 {
			return stop
		}
		return nil
	}); err != stop || n != 3 {
		t.Errorf("list gave %v after %d", err, n)
	}
}

func testListMany(t *testing.T, s bucket.Store) {
	const many = 1203 // more than one page of S3
	wanted := make([]string, many)
	each(t, many, func(i int) error {
		wanted[i] = fmt.Sprintf("many/%02x/%04d", i/300, i)
		_, err := s.Put(t.Context(), wanted[i], bucket.Bytes([]byte{byte(i)}), bucket.Cond{})
		return err
	})
	if diff := cmp.Diff(wanted, list(t, s, "many/")); diff != "" {
		t.Error(diff)
	}
}

// each runs f for 0…n-1 on 16 goroutines.
func each(t *testing.T, n int, f func(i int) error) {
	t.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := f(i); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func testDelete(t *testing.T, s bucket.Store) {
	put(t, s, "del/a/b", "x")
	for _, key := range []string{"del/a/b", "del/a/b", "del/never", "del/a", "del"} {
		if err := s.Delete(t.Context(), key); err != nil {
			t.Errorf("delete %s: %v", key, err)
		}
	}
	if got := list(t, s, "del/"); len(got) != 0 {
		t.Errorf("still there: %v", got)
	}
	put(t, s, "del/a/b", "again")
	if got, _ := get(t, s, "del/a/b", 0, -1); got != "again" {
		t.Errorf("got %q", got)
	}
}

func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func testLarge(t *testing.T, s bucket.Store) {
	big := noise(32<<20 + 7)
	if _, err := s.Put(t.Context(), "large", bucket.Bytes(big), bucket.Cond{Absent: true}); err != nil {
		t.Fatal(err)
	}
	r, info, err := s.Get(t.Context(), "large", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	sum := sha256.New()
	if n, err := io.Copy(sum, r); err != nil || n != int64(len(big)) || info.Size != n {
		t.Fatalf("read %d of %d: %v", n, len(big), err)
	}
	if digest.Digest(sum.Sum(nil)) != digest.Of(big) {
		t.Error("other bytes came back")
	}
	if got, _ := get(t, s, "large", 20<<20, 5); got != string(big[20<<20:20<<20+5]) {
		t.Error("a range of other bytes")
	}
	if got, _ := get(t, s, "large", -65536, -1); got != string(big[len(big)-65536:]) {
		t.Error("a tail of other bytes")
	}
}

func testBadKeys(t *testing.T, s bucket.Store) {
	for _, key := range []string{"", ".", "..", "../x", "a/../../x", "/x", "a//b", "a/", `a\b`, "C:/x", "a:b", "a\x00b", "é", ".nightferry-tmp/lock"} {
		if _, err := s.Put(t.Context(), key, bucket.Bytes(nil), bucket.Cond{}); bucket.KindOf(err) != bucket.KindOther || err == nil {
			t.Errorf("put %q: %v", key, err)
		}
		if _, _, err := s.Get(t.Context(), key, 0, -1); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("get %q: %v", key, err)
		}
		if err := s.Delete(t.Context(), key); err == nil {
			t.Errorf("delete %q was accepted", key)
		}
	}
	if err := s.List(t.Context(), "../", func(bucket.Info) error { return nil }); err == nil {
		t.Error("list ../ was accepted")
	}
}

func testCancel(t *testing.T, s bucket.Store) {
	put(t, s, "cancel", "x")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, get := s.Get(ctx, "cancel", 0, -1)
	_, put := s.Put(ctx, "cancel", bucket.Bytes(nil), bucket.Cond{})
	list := s.List(ctx, "", func(bucket.Info) error { return nil })
	for op, err := range map[string]error{"get": get, "put": put, "delete": s.Delete(ctx, "cancel"), "list": list} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", op, err)
		}
	}
}

func testConcurrent(t *testing.T, s bucket.Store) {
	body := noise(3 << 20)
	b := bucket.Body{Size: int64(len(body)), SHA256: digest.Of(body)}
	each(t, 32, func(i int) error {
		own := b
		own.R = bytes.NewReader(body)
		key := fmt.Sprintf("conc/%d", i%4)
		if _, err := s.Put(t.Context(), key, own, bucket.Cond{}); err != nil {
			return err
		}
		off := int64(i) * 1000
		r, _, err := s.Get(t.Context(), key, off, 1<<20)
		if err != nil {
			return err
		}
		defer r.Close()
		got, err := io.ReadAll(r)
		if err == nil && !bytes.Equal(got, body[off:off+1<<20]) {
			err = errors.New("other bytes")
		}
		return err
	})
}

// TestDirLeavesNoTemp: after any outcome, a directory store contains only
// objects.
func TestDirLeavesNoTemp(t *testing.T) {
	dir := t.TempDir()
	s := openDir(t, dir)
	put(t, s, "a", "1")
	body := bucket.Bytes([]byte("x"))
	body.SHA256[0]++
	if _, err := s.Put(t.Context(), "b", body, bucket.Cond{}); err == nil {
		t.Fatal("stored")
	}
	if _, err := s.Put(t.Context(), "a", bucket.Bytes([]byte("2")), bucket.Cond{ETag: "other"}); err == nil {
		t.Fatal("swapped")
	}
	left, err := filepath.Glob(filepath.Join(dir, ".nightferry-tmp", "*"))
	if err != nil || len(left) != 1 || filepath.Base(left[0]) != "lock" {
		t.Errorf("left: %v %v", left, err)
	}
	if got := list(t, s, ""); !slices.Equal(got, []string{"a"}) {
		t.Errorf("listed: %v", got)
	}
}

func TestDirSweepsOldTemp(t *testing.T) {
	dir := t.TempDir()
	put(t, openDir(t, dir), "a", "1")
	temp := filepath.Join(dir, ".nightferry-tmp")
	old, fresh := filepath.Join(temp, "old"), filepath.Join(temp, "fresh")
	for _, f := range []string{old, fresh} {
		if err := os.WriteFile(f, []byte("half an obj"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	day := time.Now().Add(-25 * time.Hour)
	if err := os.Chtimes(old, day, day); err != nil {
		t.Fatal(err)
	}
	put(t, openDir(t, dir), "b", "1")
	if _, err := os.Stat(old); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a dead process's file stays: %v", err)
	}
	if _, err := os.Stat(fresh); err != nil {
		t.Errorf("a live process's file is gone: %v", err)
	}
}
