package pains

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"nightferry/internal/apply"
	"nightferry/internal/bucket"
	"nightferry/internal/push"
	"nightferry/internal/repo"
	"nightferry/internal/s3test"
)

// s5cmd #695: the listing fails and is taken for an empty one, so everything is deleted.
//
// Two sites hold release 1. Release 2 deletes, adds and changes files. The store fails at the first, second, third…
// request of its pull, until a pull needs fewer requests than that.
func TestPain02_StoreThatFails(t *testing.T) {
	w := newWorld(t, plan{s3: true})
	first := tree{"a": noise(1, 1000), "b/c": noise(2, 700_000), "d/e/f": noise(3, 10)}
	lay(t, w.src, first)
	w.mustPush(nil)
	template := w.site()
	w.arrive(template)
	put(t, template, "the site's own", []byte("own")) // prune would delete this file
	lay(t, w.src, tree{"a": noise(4, 1000), "b/c": first["b/c"], "new": noise(5, 300_000)})
	w.mustPush(func(o *push.Options) { o.AllowDeletes = true })
	for _, tt := range []struct {
		name string
		f    http.HandlerFunc
		kind bucket.Kind
	}{
		{"403", forbidden, bucket.KindDenied},
		{"no answer", silent, bucket.KindUnreachable},
		{"empty", emptied, bucket.KindNotExist},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := *w
			w.t = t
			ended := false
			for n := int64(1); !ended; n++ {
				if n > 30 {
					t.Fatal("a pull of three files takes more than 30 requests")
				}
				site := w.site()
				copyTree(t, template, site)
				kept := untouched(t, site)
				b, wire := s3test.Through(t, w.bucket, from(n, tt.f))
				p, err := w.pullFrom(impatient(t, b), site, func(o *apply.Options) { o.Prune = true })
				if err == nil {
					// The pull never met the fault, or a 404 is a valid answer: there is no newer trust document.
					ended = wire.Counts().Requests() < n
					if !ended && tt.kind != bucket.KindNotExist {
						t.Errorf("request %d failed and the pull did not: %v", n, wire.Counts())
					}
					if p.Verdict == apply.Verified {
						same(t, look(t, w.src), look(t, site))
						continue
					}
				}
				kept()
				if p.Deleted != 0 || p.Verdict == apply.Verified {
					t.Errorf("broken at request %d: %d deletes, verdict %q", n, p.Deleted, p.Verdict)
				}
				var missing *repo.MissingError
				gone := tt.kind == bucket.KindNotExist && (errors.As(err, &missing) || errors.Is(err, repo.ErrOlder))
				if bucket.KindOf(err) != tt.kind && !gone {
					t.Errorf("broken at request %d: error %v is of kind %v, want %v", n, err, bucket.KindOf(err), tt.kind)
				}
			}
		})
	}
}

// The same for a push: the channel and every site stay as they were.
func TestPain02_StoreThatFailsThePush(t *testing.T) {
	w := newWorld(t, plan{s3: true})
	lay(t, w.src, tree{"a": noise(1, 1000), "b": noise(2, 200_000)})
	w.mustPush(nil)
	site := w.site()
	w.arrive(site)
	lay(t, w.src, tree{"a": noise(3, 1000), "b": noise(2, 200_000), "c": noise(4, 50_000)})
	for _, f := range []http.HandlerFunc{forbidden, silent} {
		for n := int64(1); ; n++ {
			if n > 30 {
				t.Fatal("a push of two files takes more than 30 requests")
			}
			b, wire := s3test.Through(t, w.bucket, from(n, f))
			p, err := w.pushTo(impatient(t, b), nil)
			if err == nil && wire.Counts().Requests() < n {
				w.arrive(site)
				put(t, w.src, "c", noise(uint64(100+n), 50_000)) // for the other fault
				break
			}
			if err == nil && p.Number == 0 {
				t.Errorf("request %d failed, and the push neither failed nor published", n)
			}
			if err != nil {
				if r, perr := w.pull(site, nil); perr != nil || !r.NoOp {
					t.Errorf("broken at request %d (%v): the site sees release %d: %v", n, err, r.Number, perr)
				}
				continue
			}
			w.arrive(site)
			put(t, w.src, "c", noise(uint64(100+n), 50_000))
		}
	}
	// The store accepts everything except one kind of object.
	for i, part := range []string{"/packs/", "/index/", "/index/root", "/releases/", "/head"} {
		w.mustPush(nil)
		w.arrive(site)
		put(t, w.src, "c", noise(uint64(200+i), 50_000))
		b, _ := s3test.Through(t, w.bucket, puts(part, forbidden))
		_, err := w.pushTo(impatient(t, b), nil)
		if r, perr := w.pull(site, nil); bucket.KindOf(err) != bucket.KindDenied || perr != nil || !r.NoOp {
			t.Errorf("no %s could be stored (%v): the site sees release %d: %v", part, err, r.Number, perr)
		}
	}
	w.mustPush(nil)
	w.arrive(site)
}

// A missing source is not an empty release.
func TestPain02_SourceThatIsGone(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(t *testing.T, src string)
		says  string
	}{
		{"empty", func(t *testing.T, src string) { lay(t, src, nil) }, "is it mounted"},
		{"only empty folders left", func(t *testing.T, src string) { lay(t, src, tree{"a/": nil, "b/c/": nil}) }, "is it mounted"},
		{"missing", func(t *testing.T, src string) { must(t, os.RemoveAll(src)) }, "is it mounted"},
		{"a share below is not mounted", func(t *testing.T, src string) { lay(t, filepath.Join(src, "b"), nil) }, "--allow-deletes"},
		{"a file", func(t *testing.T, src string) {
			must(t, os.RemoveAll(src))
			must(t, os.WriteFile(src, nil, 0o644))
		}, "source folder"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, plan{})
			for i := range 10 {
				put(t, w.src, fmt.Sprintf("a/%d", i), noise(uint64(i), 10))
				put(t, w.src, fmt.Sprintf("b/c/%d", i), noise(uint64(10+i), 10))
			}
			w.mustPush(nil)
			site := w.site()
			w.arrive(site)
			kept := untouched(t, site)
			tt.spoil(t, w.src)
			_, err := w.push(nil)
			says(t, err, tt.says)
			if r, err := w.pull(site, nil); err != nil || !r.NoOp {
				t.Errorf("the site saw something: %v", err)
			}
			kept()
		})
	}
}

// A scheduler sees the exit code.
func TestPain02_ExitCodes(t *testing.T) {
	w := newWorld(t, plan{s3: true})
	store, signing := w.initCLI()
	put(t, w.src, "a", []byte("a"))
	site := w.site()
	for _, args := range [][]string{{"push", "--release-key", signing, w.src, store, channel}, {"pull", store, channel, site}} {
		if r := w.nightferry(args...); r.code != 0 {
			t.Fatalf("%v ended with %d: %s", args, r.code, r.errOut)
		}
	}
	kept := untouched(t, site)
	b, _ := s3test.Through(t, w.bucket, from(1, forbidden))
	if r := w.nightferry("pull", b.URL("cli"), channel, site); r.code != 7 || r.errOut == "" {
		t.Errorf("pull at 403: exit code %d, want 7: %s", r.code, r.errOut)
	}
	lay(t, w.src, nil)
	if r := w.nightferry("push", "--release-key", signing, w.src, store, channel); r.code != 4 || r.errOut == "" {
		t.Errorf("push of nothing: exit code %d, want 4: %s", r.code, r.errOut)
	}
	kept()
}
