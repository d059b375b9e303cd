package repo

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nightferry/internal/bucket"
	"nightferry/internal/digest"
	"nightferry/internal/frame"
	"nightferry/internal/halt"
	"nightferry/internal/testbed"
	"nightferry/internal/trust"
)

func keys(ks ...trust.Key) *trust.Doc { return &trust.Doc{Keys: ks} }

func key(b byte, s trust.Status) trust.Key {
	return trust.Key{Public: PublicOf(seedKey(b)), Roles: trust.AllRoles, Status: s}
}

// A new key can sign. A retired key's releases stay valid, its heads do not. A
// revoked key's signature is valid only for releases that a good head names.
func TestRotationAndRevocation(t *testing.T) {
	both(t, func(t *testing.T, p *press) {
		ctx := t.Context()
		one := p.publish("one")
		r := p.mustOpen(nil)
		site := r.Memory()

		if err := r.Trust().Put(ctx, p.root, keys(key(2, trust.Retired), key(3, trust.Active))); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Publisher(p.key).Publish(ctx, Commit{Release: one.Release}); !errors.Is(err, trust.ErrUntrusted) {
			t.Errorf("a retired key published: %v", err)
		}
		r, err := p.open(nil, &site)
		if err != nil {
			t.Fatal(err)
		}
		if _, n := r.Trust().Current(); n != 2 {
			t.Errorf("trust document %d, want 2", n)
		}
		if _, err := r.Head(ctx, testChannel); !errors.Is(err, trust.ErrUntrusted) || !strings.Contains(err.Error(), "retired") {
			t.Errorf("a retired key's head: %v", err)
		}
		if _, err := r.Release(ctx, testChannel, 1, trust.ReleaseDigest{}); err != nil {
			t.Errorf("a retired key's release: %v", err)
		}
		if n, err := r.Publisher(seedKey(3)).Resign(ctx, testChannel); err != nil || n != 1 {
			t.Errorf("resign: %d %v", n, err)
		}
		if _, err := r.Head(ctx, testChannel); err != nil {
			t.Errorf("signed again: %v", err)
		}

		if err := r.Trust().Put(ctx, p.root, keys(key(2, trust.Revoked), key(3, trust.Active))); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Release(ctx, testChannel, 1, trust.ReleaseDigest{}); !errors.Is(err, trust.ErrUntrusted) {
			t.Errorf("a revoked key's release, by its signer: %v", err)
		}
		if _, err := r.Release(ctx, testChannel, 1, one.Digest); err != nil {
			t.Errorf("a revoked key's release, named by a good head: %v", err)
		}
		if err := r.Trust().Put(ctx, seedKey(2), keys(key(2, trust.Active))); !errors.Is(err, trust.ErrUntrusted) {
			t.Errorf("a release key signed trust: %v", err)
		}
	})
}

// A release published before its key was revoked stays usable if the head leads
// to it, so that a rollback is possible after a theft. Nothing else of that key
// is accepted.
func TestOlderReleaseOfARevokedKey(t *testing.T) {
	both(t, func(t *testing.T, p *press) {
		ctx := t.Context()
		one := p.publish("one")
		r := p.mustOpen(nil)
		head, err := r.Head(ctx, testChannel)
		if err != nil {
			t.Fatal(err)
		}
		two := one.Release
		if _, err := r.Publisher(p.key).Publish(ctx, Commit{Release: two, Parent: head}); err != nil {
			t.Fatal(err)
		}
		for _, doc := range []*trust.Doc{keys(key(2, trust.Retired), key(3, trust.Active)), keys(key(2, trust.Revoked), key(3, trust.Active))} {
			if err := r.Trust().Put(ctx, p.root, doc); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Publisher(seedKey(3)).Resign(ctx, testChannel); err != nil {
				t.Fatal(err)
			}
		}
		if head, err = r.Head(ctx, testChannel); err != nil || head.Number != 2 {
			t.Fatal(head, err)
		}
		if _, err := r.Release(ctx, testChannel, 1, trust.ReleaseDigest{}); !errors.Is(err, trust.ErrUntrusted) {
			t.Errorf("by its signer: %v", err)
		}
		got, err := r.ReleaseBelow(ctx, testChannel, head, 1)
		if err != nil || got.Digest != one.Digest {
			t.Errorf("where the head leads to it: %v", err)
		}
		// A head that starts the channel anew leads to no earlier release.
		first := *head
		first.Release = one.Digest
		first.Number = 1
		if _, err := r.ReleaseBelow(ctx, testChannel, &first, 2); !errors.Is(err, trust.ErrUntrusted) {
			t.Errorf("where it does not: %v", err)
		}
	})
}

// Renew signs only a head that the caller knows to be good. Otherwise a thief's
// head, signed with a revoked key, would become a good one.
func TestRenewSignsWhatIsKnown(t *testing.T) {
	both(t, func(t *testing.T, p *press) {
		ctx := t.Context()
		one := p.publish("one")
		r := p.mustOpen(nil)
		other := *one
		other.Digest = trust.ReleaseDigest(digest.Of([]byte("another release")))
		for _, tt := range []struct {
			name   string
			status trust.Status        // of the key that signed the head
			number trust.ReleaseNumber // number in the head
			names  *Release            // release that the head names
			want   error
		}{
			{"the known release", trust.Active, 1, one, nil},
			{"the known release, by a retired key", trust.Retired, 1, one, nil},
			{"the known release, by a revoked key", trust.Revoked, 1, one, trust.ErrUntrusted},
			{"a newer release", trust.Active, 7, &other, ErrConflict},
			{"a newer release, by a revoked key", trust.Revoked, 7, &other, trust.ErrUntrusted},
			{"another release by that number", trust.Active, 1, &other, ErrConflict},
			{"the known release by another number", trust.Retired, 7, one, ErrConflict},
		} {
			if err := r.Trust().Put(ctx, p.root, keys(key(2, tt.status), key(3, trust.Active))); err != nil {
				t.Fatal(err)
			}
			at := HeadKey(r.Keys().Name(testChannel))
			if err := p.store.Delete(ctx, at); err != nil {
				t.Fatal(err)
			}
			if err := r.Publisher(p.key).putHead(ctx, testChannel, tt.number, tt.names.Digest, ""); err != nil {
				t.Fatal(err)
			}
			before := p.get(at)
			if _, err := r.Publisher(seedKey(3)).Renew(ctx, testChannel, 1, one.Digest); !errors.Is(err, tt.want) {
				t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
			}
			if same := string(before) == string(p.get(at)); same != (tt.want != nil) {
				t.Errorf("%s: the head is the same: %t", tt.name, same)
			}
		}
	})
}

// Documents of another root key are refused, whether they were there from the
// start or were added later.
func TestWrongRoot(t *testing.T) {
	both(t, func(t *testing.T, p *press) {
		site := p.mustOpen(nil).Memory()
		wrong := PublicOf(seedKey(5))
		if _, err := Open(t.Context(), p.store, Options{Root: &wrong, Key: p.seal, Now: time.Now}); !errors.Is(err, trust.ErrUntrusted) {
			t.Errorf("--trust with another key: %v", err)
		}
		if _, err := Open(t.Context(), p.store, Options{Memory: &site, Root: &wrong, Key: p.seal, Now: time.Now}); !errors.Is(err, trust.ErrUntrusted) {
			t.Errorf("--trust against the pin: %v", err)
		}
		if err := p.mustOpen(nil).trust.create(t.Context(), seedKey(5), 2, keys(key(5, trust.Active))); err != nil {
			t.Fatal(err)
		}
		if _, err := p.open(nil, &site); !errors.Is(err, trust.ErrUntrusted) {
			t.Errorf("a forged trust document: %v", err)
		}
		if _, err := p.open(nil, nil); !errors.Is(err, trust.ErrUntrusted) {
			t.Errorf("a forged trust document, on first use: %v", err)
		}
	})
}

// Another repository's objects are refused under this one's keys.
func TestForeignObjects(t *testing.T) {
	both(t, func(t *testing.T, p *press) {
		other := newPress(t, p.seal)
		other.publish("other")
		p.publish("mine")
		r, o := p.mustOpen(nil), other.mustOpen(nil)
		p.put(HeadKey(r.Keys().Name(testChannel)), other.get(HeadKey(o.Keys().Name(testChannel))))
		if _, err := r.Head(t.Context(), testChannel); !errors.Is(err, trust.ErrUntrusted) {
			t.Errorf("a foreign head: %v", err)
		}
		p.put(haltKey, other.get(haltKey))
		if err := r.Halts().Check(t.Context(), halt.Subject{}); !errors.Is(err, trust.ErrUntrusted) {
			t.Errorf("a foreign halt: %v", err)
		}
		site := r.Memory()
		if _, err := Open(t.Context(), other.store, Options{Memory: &site, Key: p.seal, Now: time.Now}); !errors.Is(err, trust.ErrUntrusted) {
			t.Errorf("another repository in the store's place: %v", err)
		}
	})
}

// Objects older than those seen before are refused, and nothing of them is
// remembered.
func TestReplays(t *testing.T) {
	both(t, func(t *testing.T, p *press) {
		ctx := t.Context()
		headKey := HeadKey(p.mustOpen(nil).Keys().Name(testChannel))
		p.publish("one")
		oldHead, oldHalt := p.get(headKey), p.get(haltKey)
		p.publish("two")
		r := p.mustOpen(nil)
		if _, err := r.Halts().Put(ctx, p.key, func(o *halt.Orders) error {
			o.Add(halt.Order{ID: halt.NewID(), Scope: halt.All, Reason: "test", By: "me"})
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if err := r.Trust().Put(ctx, p.root, keys(key(2, trust.Active), key(3, trust.Active))); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Head(ctx, testChannel); err != nil {
			t.Fatal(err)
		}
		site := r.Memory()
		if site.Heads[testChannel] != 2 || site.Halt != 2 || site.Trust != 2 {
			t.Fatalf("%+v", site)
		}

		for name, replay := range map[string]func(){
			"older head": func() { p.put(headKey, oldHead) },
			"no head":    func() { _ = p.store.Delete(ctx, headKey) },
		} {
			now := p.get(headKey)
			replay()
			again, err := p.open(nil, &site)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := again.Head(ctx, testChannel); !errors.Is(err, ErrOlder) {
				t.Errorf("%s: %v", name, err)
			}
			if diff := cmp.Diff(site, again.Memory()); diff != "" {
				t.Errorf("%s is remembered: %s", name, diff)
			}
			if _, err := again.Publisher(p.key).Resign(ctx, testChannel); err == nil {
				t.Errorf("%s was signed again", name)
			}
			p.put(headKey, now)
		}

		p.put(haltKey, oldHalt)
		again, err := p.open(nil, &site)
		if err != nil {
			t.Fatal(err)
		}
		if err := again.Halts().Check(ctx, halt.Subject{}); !errors.Is(err, ErrOlder) {
			t.Errorf("an older halt: %v", err)
		}
		if diff := cmp.Diff(site, again.Memory()); diff != "" {
			t.Errorf("an older halt is remembered: %s", diff)
		}
		_ = p.store.Delete(ctx, haltKey)
		if err := again.Halts().Check(ctx, halt.Subject{}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("no halt object: %v", err)
		}

		// A trust document that was put back does not restore its content: the
		// site remembers the newer one.
		_ = p.store.Delete(ctx, TrustKey(2))
		if again, err = p.open(nil, &site); err != nil {
			t.Fatal(err)
		}
		if doc, n := again.Trust().Current(); n != 2 || doc.Find(PublicOf(seedKey(3))) == nil {
			t.Errorf("trust document %d is in force", n)
		}
		if _, err := again.Trust().Check(ctx); !errors.Is(err, ErrOlder) {
			t.Errorf("the chain of a rolled back store: %v", err)
		}
	})
}

// An invalid halt object stops everything until it is replaced. Any holder of a
// halt key can replace it, with an epoch above all that it has seen. An object
// that a newer program wrote, or that cannot be read now, is not replaced.
func TestLostOrdersAreReplaced(t *testing.T) {
	both(t, func(t *testing.T, p *press) {
		ctx := t.Context()
		r := p.mustOpen(nil)
		if _, err := r.Halts().Put(ctx, p.key, func(o *halt.Orders) error {
			o.Add(halt.Order{ID: halt.NewID(), Scope: halt.All, Reason: "test", By: "me"})
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		good := p.get(haltKey)
		site := r.Memory()
		stranger, err := r.Halts().Sign(seedKey(5), 99, &halt.Orders{})
		if err != nil {
			t.Fatal(err)
		}
		altered := slices.Clone(good)
		altered[len(altered)-1] ^= 1
		newer := slices.Clone(good)
		newer[frame.HeaderSize-1]++ // its version
		if !errors.As(func() error { _, err := r.Halts().Open(newer); return err }(), new(*frame.NewerError)) {
			t.Fatal("that is no newer object")
		}
		for _, tt := range []struct {
			name     string
			object   []byte // nil: none
			replaced bool
		}{
			{"gone", nil, true},
			{"empty", []byte{}, true},
			{"cut short", good[:len(good)-1], true},
			{"altered", altered, true},
			{"too large", make([]byte, halt.Max+1), true},
			{"by a key that nobody knows", stranger, true},
			{"by a newer program", newer, false},
		} {
			testbed.DeleteObject(t, p.store, haltKey)
			if tt.object != nil {
				p.put(haltKey, tt.object)
			}
			again, err := p.open(nil, &site)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := again.Halts().Read(ctx); OrdersLost(err) != tt.replaced {
				t.Errorf("%s: %v", tt.name, err)
			}
			epoch, err := again.Halts().Put(ctx, p.key, func(o *halt.Orders) error {
				if len(o.Active) != 0 {
					t.Errorf("%s: orders of nobody: %+v", tt.name, o.Active)
				}
				return nil
			})
			if !tt.replaced {
				if err == nil || string(p.get(haltKey)) != string(tt.object) {
					t.Errorf("%s: it was replaced: %v", tt.name, err)
				}
				continue
			}
			if err != nil || epoch != site.Halt+1 {
				t.Errorf("%s: epoch %d, seen %d: %v", tt.name, epoch, site.Halt, err)
			}
			if err := again.Halts().Check(ctx, halt.Subject{}); err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
		}
		p.put(haltKey, good)
		broken, err := p.open(testbed.Fail(p.store, testbed.Rule{Op: "get", Prefix: haltKey, Kind: bucket.KindUnreachable}), &site)
		if err == nil {
			_, err = broken.Halts().Put(ctx, p.key, func(*halt.Orders) error { return nil })
		}
		if !errors.Is(err, testbed.ErrFault) || string(p.get(haltKey)) != string(good) {
			t.Errorf("one that could not be read: %v, or it was replaced", err)
		}
	})
}

// A release in place of another is refused, by number, channel and digest.
func TestReleaseInAnothersPlace(t *testing.T) {
	both(t, func(t *testing.T, p *press) {
		one, two := p.publish("one"), p.publish("two")
		r := p.mustOpen(nil)
		name := r.Keys().Name(testChannel)
		p.put(ReleaseKey(name, 2), p.get(ReleaseKey(name, 1)))
		for _, want := range []trust.ReleaseDigest{{}, one.Digest, two.Digest} {
			if _, err := r.Release(t.Context(), testChannel, 2, want); !errors.Is(err, trust.ErrUntrusted) {
				t.Errorf("release 1 as 2, %s wanted: %v", want.Short(), err)
			}
		}
		p.put(ReleaseKey(r.Keys().Name("driver"), 1), p.get(ReleaseKey(name, 1)))
		if _, err := r.Release(t.Context(), "driver", 1, trust.ReleaseDigest{}); !errors.Is(err, trust.ErrUntrusted) {
			t.Errorf("another channel's release: %v", err)
		}
	})
}

func TestExpiredHead(t *testing.T) {
	p := newPress(t, nil)
	p.publish("one")
	p.now = p.now.Add(HeadLife + time.Second)
	h, err := p.mustOpen(nil).Head(t.Context(), testChannel)
	if err != nil || !h.Expired {
		t.Errorf("%+v %v", h, err)
	}
}

func TestWrongRepositoryKey(t *testing.T) {
	p := newPress(t, make([]byte, 32))
	for _, k := range [][]byte{nil, {1}, append(make([]byte, 31), 1)} {
		if _, err := Open(t.Context(), p.store, Options{Key: k, Now: time.Now}); !errors.Is(err, ErrKey) {
			t.Errorf("key of %d bytes: %v", len(k), err)
		}
	}
}

// In an encrypted repository, neither object names nor objects reveal the
// channel or the content.
func TestEncryptedTellsNothing(t *testing.T) {
	p := newPress(t, make([]byte, 32))
	secret := strings.Repeat("the secret content ", 100)
	p.publish(secret)
	r := p.mustOpen(nil)
	channels, err := r.Channels(t.Context())
	if err != nil || len(channels) != 1 || channels[0] != testChannel {
		t.Errorf("%v %v", channels, err)
	}
	for _, k := range allKeys(p) {
		b := k + string(p.get(k))
		for _, s := range []string{testChannel, "secret", "file", digest.Of([]byte(secret)).String(), string(digestBytes([]byte(secret)))} {
			if strings.Contains(b, s) {
				t.Errorf("%s tells %q", k, s)
			}
		}
	}
}

func digestBytes(b []byte) []byte { d := digest.Of(b); return d[:] }

// TestTrustChangesWhileOthersRead checks that the trust document may be replaced while other goroutines check signatures.
func TestTrustChangesWhileOthersRead(t *testing.T) {
	both(t, func(t *testing.T, p *press) {
		ctx := t.Context()
		p.publish("one")
		r := p.mustOpen(nil)
		var readers sync.WaitGroup
		begun, done := make(chan struct{}, 4), make(chan struct{})
		for range cap(begun) {
			readers.Go(func() {
				for n := 0; ; n++ {
					if _, err := r.Head(ctx, testChannel); err != nil {
						t.Error(err)
					}
					if err := r.Halts().Check(ctx, halt.Subject{}); err != nil {
						t.Error(err)
					}
					if n == 0 {
						begun <- struct{}{}
					}
					select {
					case <-done:
						return
					default:
					}
				}
			})
		}
		for range cap(begun) {
			<-begun
		}
		for range 3 {
			if err := r.Trust().Put(ctx, p.root, keys(key(2, trust.Active), key(3, trust.Active))); err != nil {
				t.Error(err)
			}
		}
		close(done)
		readers.Wait()
		if _, n := r.Trust().Current(); n != 4 {
			t.Errorf("trust document %d, want 4", n)
		}
	})
}
