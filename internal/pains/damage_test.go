package pains

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"nightferry/internal/apply"
	"nightferry/internal/bucket"
	"nightferry/internal/collect"
	"nightferry/internal/durable"
	"nightferry/internal/push"
	"nightferry/internal/repo"
	"nightferry/internal/testbed"
)

type (
	finding        = collect.Finding
	publishOptions = push.Options
)

// releasesOfEverything returns a repository of two releases with every kind of object and every form of file, and a
// site that holds the first release.
func releasesOfEverything(t testing.TB, secret []byte) (*world, string) {
	t.Helper()
	w := newWorld(t, plan{secret: secret, params: smallChunks})
	lay(t, w.src, older())
	w.mustPush(nil)
	template := w.site()
	w.arrive(template)
	lay(t, w.src, newer())
	w.mustPush(func(o *push.Options) { o.AllowDeletes = true })
	return w, template
}

// tryDamaged pulls the damaged repository into a copy of template, or into a new folder if template is "". The pull
// must end with every byte of the new release, or change nothing and return an error that names the damaged object.
// When the object is repaired, nothing cached from the damage may prevent the next pull.
func (w *world) tryDamaged(what, template, key string) {
	t := w.t
	t.Helper()
	site := w.site()
	if template != "" {
		copyTree(t, template, site)
	}
	before := look(t, site)
	p, err := w.pull(site, nil)
	switch {
	case err == nil && p.Verdict == apply.Verified:
		if d := differences(look(t, w.src), look(t, site)); len(d) > 0 {
			t.Errorf("%s: verified, but %v differ", what, d)
		}
	case err == nil:
		t.Errorf("%s: verdict %q and no error: %v", what, p.Verdict, p.files)
	default:
		if d := differences(before, look(t, site)); len(d) > 0 {
			t.Errorf("%s: refused (%v), but %v changed", what, err, d)
		}
		if !tells(err, key) {
			t.Errorf("%s: the error does not name the object: %v", what, err)
		}
	}
}

// tells reports whether an error names an object, by its key or by its user-visible name.
func tells(err error, key string) bool {
	text := err.Error()
	words := []string{key}
	switch {
	case key == "format":
		words = append(words, "frmt", "no repository is here")
	case key == "index/root":
		words = append(words, "index root")
	case strings.HasPrefix(key, "channels/") && strings.HasSuffix(key, "/head"):
		words = append(words, "head of", "has no head", "no release yet")
	case strings.HasPrefix(key, "channels/"):
		words = append(words, "release "+key[strings.LastIndexByte(key, '/')+1:])
	case strings.HasPrefix(key, "trust/"):
		words = append(words, "trus")
	}
	for _, word := range words {
		if strings.Contains(text, word) {
			return true
		}
	}
	return false
}

// forgetMissing runs fsck as its own remedy describes.
func (w *world) forgetMissing() {
	t := w.t
	t.Helper()
	r, err := repo.Open(t.Context(), w.store, repo.Options{Key: w.secret, Now: time.Now})
	must(t, err)
	dir, err := durable.Open(t.TempDir(), durable.Options{})
	must(t, err)
	defer dir.Close()
	_, err = collect.Fsck(t.Context(), r, r.Segments(dir), collect.FsckOptions{ReadData: true, ForgetMissing: true}, func(collect.Finding) {})
	must(t, err)
}

// gc runs a garbage collection, later by the given time, with the state that the Core keeps.
func (w *world) gc(later time.Duration) error {
	t := w.t
	t.Helper()
	s := &laterStore{w.store, later}
	r, err := repo.Open(t.Context(), s, repo.Options{Key: w.secret, Now: func() time.Time { return time.Now().Add(later) }, Memory: w.memory})
	must(t, err)
	dir, err := durable.Open(t.TempDir(), durable.Options{})
	must(t, err)
	defer dir.Close()
	_, err = collect.GC(t.Context(), r, r.Segments(dir), collect.Options{Key: w.key})
	return err
}

// laterStore is a store whose clock is ahead by the given time, so that its objects appear older.
type laterStore struct {
	bucket.Store
	by time.Duration
}

func (s *laterStore) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, bucket.Info, error) {
	r, info, err := s.Store.Get(ctx, key, off, n)
	info.Date = info.Date.Add(s.by)
	return r, info, err
}

func (s *laterStore) Put(ctx context.Context, key string, b bucket.Body, c bucket.Cond) (bucket.Info, error) {
	info, err := s.Store.Put(ctx, key, b, c)
	info.Date = info.Date.Add(s.by)
	return info, err
}

// Flipped bits and truncation, in every object of a repository.
func TestBadInput_FlippedAndTruncated(t *testing.T) {
	flips, cuts := 4, 4
	if testbed.Soak() {
		flips, cuts = 100, 30
	}
	for name, secret := range map[string][]byte{"plain": nil, "encrypted": noise(9, 32)} {
		t.Run(name, func(t *testing.T) {
			w, template := releasesOfEverything(t, secret)
			r := rand.New(rand.NewPCG(2, 2))
			tried := 0
			for _, key := range testbed.Keys(t, w.store, "") {
				good := testbed.ReadObject(t, w.store, key)
				var damaged []damage
				for n := range flips {
					bit := r.IntN(8 * len(good))
					if n == 0 {
						bit = 8*len(good) - 1
					}
					b := append([]byte(nil), good...)
					b[bit/8] ^= 1 << (bit % 8)
					damaged = append(damaged, damage{fmt.Sprintf("bit %d of %d flipped", bit, 8*len(good)), b})
				}
				for n := range cuts {
					to := []int{0, len(good) - 1, len(good) / 2, r.IntN(len(good))}[n%4]
					if n >= 4 {
						to = r.IntN(len(good))
					}
					damaged = append(damaged, damage{fmt.Sprintf("cut to %d of %d bytes", to, len(good)), good[:to]})
				}
				for n, d := range damaged {
					testbed.WriteObject(t, w.store, key, d.bytes)
					what := fmt.Sprintf("%s, %s", key, d.what)
					found, err := w.fsck()
					if !named(found, err, key) {
						t.Errorf("%s: fsck does not name it: %v %v", what, found, err)
					}
					from := ""
					if n%2 == 1 {
						from = template
					}
					w.tryDamaged(what, from, key)
					tried++
				}
				testbed.WriteObject(t, w.store, key, good)
			}
			w.arrive(w.site())
			if found, err := w.fsck(); err != nil || len(found) > 0 {
				t.Errorf("mended, fsck says %v %v", found, err)
			}
			t.Logf("%d damaged objects", tried)
		})
	}
}

type damage struct {
	what  string
	bytes []byte
}
