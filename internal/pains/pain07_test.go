package pains

import (
	"net/http"
	"strings"
	"testing"

	"nightferry/internal/s3test"
	"nightferry/internal/testbed"
)

// s5cmd #563, aws-cli #6710: received bytes are not compared with those sent.
//
// A proxy flips one bit of the first response to every request, for packs, index, heads and signatures. Each flip must
// be detected, reported and repaired by a second request; the run ends with every byte right.
func TestPain07_FlippedBits(t *testing.T) {
	for name, secret := range map[string][]byte{"plain": nil, "encrypted": noise(9, 32)} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, plan{s3: true, secret: secret})
			lay(t, w.src, tree{"a.img": noise(1, 6_000_000), "text": []byte(strings.Repeat("compresses well. ", 20_000)), "small": noise(2, 100)})
			w.mustPush(nil)
			site := w.site()
			for range 2 { // the first pull, then an update
				f := &flips{seen: map[string]bool{}}
				b, wire := s3test.Through(t, w.bucket, f.fault)
				p, err := w.pullFrom(b.Open(t), site, nil)
				if err != nil {
					t.Fatalf("after %d flipped answers: %v", f.hits, err)
				}
				w.arrived(p, site)
				if f.hits < 5 || len(p.retries) == 0 {
					t.Errorf("%d answers were flipped, %d retries told", f.hits, len(p.retries))
				}
				t.Logf("%d answers flipped in %v, retries told: %v", f.hits, wire.Counts(), p.retries)
				put(t, w.src, "text", []byte(strings.Repeat("changed by an edit. ", 20_000)))
				w.mustPush(nil)
			}
			if found, err := w.fsck(); err != nil || len(found) > 0 {
				t.Errorf("the store is not as it was: %v %v", found, err)
			}
		})
	}
}

// A connection that flips bits forever ends in an error that reports it, not in a file.
func TestPain07_FlippedForEver(t *testing.T) {
	w := newWorld(t, plan{s3: true})
	lay(t, w.src, tree{"a.img": noise(1, 3_000_000)})
	w.mustPush(nil)
	site := w.site()
	b, _ := s3test.Through(t, w.bucket, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			f := &flips{seen: map[string]bool{}, hit: func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/packs/") }}
			f.fault(next).ServeHTTP(rw, r)
		})
	})
	p, err := w.pullFrom(b.Open(t), site, nil)
	says(t, err, "damaged", "packs/")
	if p.Verdict != "incomplete" || len(look(t, site)) != 0 {
		t.Errorf("verdict %q, visible: %v", p.Verdict, look(t, site))
	}
	w.arrive(site)
}

// The same for uploads: the server checks the SHA-256 of every PUT, and the push retries. If the connection damages
// every upload, the push fails without publishing.
func TestPain07_FlippedUploads(t *testing.T) {
	w := newWorld(t, plan{s3: true})
	lay(t, w.src, tree{"a.img": noise(1, 3_000_000)})
	bad, _ := s3test.Through(t, w.bucket, s3test.FlipUpload(-1, 20))
	_, err := w.pushTo(bad.Open(t), nil)
	says(t, err, "packs/", "damaged")
	if keys := testbed.Keys(t, w.store, ""); len(keys) != 4 {
		t.Errorf("something was stored: %v", keys)
	}
	b, wire := s3test.Through(t, w.bucket, s3test.FlipUpload(1, 20))
	_, err = w.pushTo(b.Open(t), nil)
	must(t, err)
	if wire.Counts().Failed == 0 {
		t.Errorf("no PUT was refused: %v", wire.Counts())
	}
	if found, err := w.fsck(); err != nil || len(found) > 0 {
		t.Errorf("damage was stored: %v %v", found, err)
	}
	w.arrive(w.site())
}
