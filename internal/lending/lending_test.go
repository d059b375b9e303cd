package lending

import (
	"context"
	"crypto/ed25519"
	"io"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/chunk"
	"nightferry/internal/digest"
	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/manifest"
	"nightferry/internal/nights"
	"nightferry/internal/releases"
	"nightferry/internal/repo"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

var berlin, osaka = wire.Address{Domain: "corp", Site: "berlin"}, wire.Address{Domain: "apac", Site: "osaka"}

// desk is a Service over an empty repository. It stands in for the ledger, the
// store and the Core.
type desk struct {
	*Service
	now     time.Time
	fleet   *fleet.Fleet
	entered chan struct{} // receives at each look at the ledger, if it is not nil
	release chan struct{} // lets those looks end

	mu      sync.Mutex
	sent    map[wire.Address][]*wire.URLs
	foreign []string
	overrun int
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	store, err := bucket.Open(t.Context(), "file://"+filepath.ToSlash(t.TempDir()), bucket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, root, _ := ed25519.GenerateKey(nil)
	_, key, _ := ed25519.GenerateKey(nil)
	if _, err := repo.Init(t.Context(), store, repo.InitOptions{Root: root, Release: key, Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	r, err := repo.Open(t.Context(), store, repo.Options{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	d := &desk{now: time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC), sent: map[wire.Address][]*wire.URLs{}}
	d.fleet = &fleet.Fleet{Sites: []fleet.Site{{Name: "berlin", Domain: "corp", Location: time.UTC, Placements: []fleet.Placement{{Channel: "package"}}}}}
	d.Service = New(Options{
		Ledger: d, Trees: noTrees{}, Notices: d, Now: func() time.Time { return d.now }, Wall: func() time.Time { return d.now },
		Real: func(x time.Duration) time.Duration { return x }, Repo: func() *repo.Repo { return r }, Store: func() Store { return d },
		Fleet: func() (*fleet.Fleet, *nights.Table) {
			table, err := nights.Parse(d.fleet)
			if err != nil {
				t.Error(err)
			}
			return d.fleet, table
		},
		Site:   func(wire.Address) Site { return Site{} },
		Newest: func(string) (ledger.Release, bool) { return ledger.Release{}, false },
		Send: func(a wire.Address, u *wire.URLs) error {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.sent[a] = append(d.sent[a], u)
			return nil
		},
		Guard: func(_ wire.Address, handle func()) { handle() },
	})
	return d
}

func (d *desk) Holdings(context.Context, ledger.Filter) ([]ledger.Holding, error) {
	if d.entered != nil {
		d.entered <- struct{}{}
		<-d.release
	}
	return nil, nil
}

func (d *desk) Runs(context.Context, ledger.RunFilter) ([]ledger.Run, error) { return nil, nil }

func (d *desk) Release(context.Context, string, trust.ReleaseNumber) (ledger.Release, error) {
	return ledger.Release{}, ledger.ErrNotFound
}

func (d *desk) Releases(context.Context, string, int) ([]ledger.Release, error) { return nil, nil }

func (d *desk) PresignGet(_ context.Context, key string, now time.Time, life time.Duration) (string, time.Time, error) {
	return "https://store/" + key, now.Add(life), nil
}

func (d *desk) Get(context.Context, string, int64, int64) (io.ReadCloser, bucket.Info, error) {
	return nil, bucket.Info{}, io.ErrUnexpectedEOF
}

func (d *desk) Foreign(_ context.Context, _ wire.Address, keys []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.foreign = append(d.foreign, keys...)
}

func (d *desk) Overrun() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.overrun++
}

func (d *desk) ReportFailure(string, error) {}

func (d *desk) LedgerFailed(error) {}

type noTrees struct{}

func (noTrees) EntriesOf(context.Context, *repo.Repo, releases.Key) (*repo.Release, manifest.Next, error) {
	return nil, nil, io.ErrUnexpectedEOF
}

func (noTrees) Refs(context.Context, *repo.Repo, *manifest.Entry) ([]chunk.Ref, error) {
	return nil, io.ErrUnexpectedEOF
}

// TestOnlyOwnObjects: a site gets URLs for what every site reads and for its own
// channels, and none for packs that its releases do not need or for other keys.
// With them come those of the halt object and of the next trust documents.
func TestOnlyOwnObjects(t *testing.T) {
	d := newDesk(t)
	pack := repo.PackKey(digest.Of([]byte("x")))
	keys := []string{"format", "trust/1", "trust/2", repo.RootKey, repo.HeadKey("package"), repo.HeadKey("driver"), pack, "format/..", "trust/01", "../halt"}
	if err := d.Ask(t.Context(), berlin, &wire.Ask{ID: 1, Keys: keys}); err != nil {
		t.Fatal(err)
	}
	d.Wait()
	out := d.sent[berlin][0]
	var lent, absent []string
	for _, u := range out.Lent {
		lent = append(lent, u.Key)
	}
	for _, r := range out.Refused {
		if r.Absent {
			absent = append(absent, r.Key)
		}
	}
	if want := []string{"format", "trust/1", repo.RootKey, "halt"}; !slices.Equal(lent, want) {
		t.Errorf("lent %q, want %q", lent, want)
	}
	var next []string
	for _, u := range out.Next {
		next = append(next, u.Key)
	}
	if len(next) != wire.MaxNext || next[0] != "trust/2" || next[wire.MaxNext-1] != repo.TrustKey(1+wire.MaxNext) {
		t.Errorf("the next trust documents are %q", next)
	}
	if want := []string{"trust/2", repo.HeadKey("package")}; !slices.Equal(absent, want) {
		t.Errorf("absent %q, want %q", absent, want)
	}
	if want := []string{repo.HeadKey("driver"), pack, "format/..", "trust/01", "../halt"}; !slices.Equal(d.foreign, want) {
		t.Errorf("foreign %q, want %q", d.foreign, want)
	}
	if d.Lent() != 3 {
		t.Errorf("%d URLs counted", d.Lent())
	}
}

// TestOneSiteDelaysNoOther: a site that requests without end has at most siteAsks
// answers at once and maxAsks waiting, and another site is answered meanwhile.
func TestOneSiteDelaysNoOther(t *testing.T) {
	d := newDesk(t)
	d.entered, d.release = make(chan struct{}, allAsks), make(chan struct{})
	ask := func(a wire.Address) {
		if err := d.Ask(t.Context(), a, &wire.Ask{Keys: []string{"format"}}); err != nil {
			t.Fatal(err)
		}
	}
	for range maxAsks + 5 {
		ask(berlin)
	}
	if d.overrun != 5 {
		t.Errorf("%d requests dropped, want 5", d.overrun)
	}
	for range siteAsks {
		<-d.entered
	}
	ask(osaka)
	<-d.entered // osaka's: berlin has no further turn
	close(d.release)
	go func() {
		for range d.entered { // the others need not wait
		}
	}()
	d.Wait()
	close(d.entered)
	if len(d.sent[berlin]) != maxAsks || len(d.sent[osaka]) != 1 {
		t.Errorf("%d and %d answers", len(d.sent[berlin]), len(d.sent[osaka]))
	}
	if len(d.queues) != 0 {
		t.Errorf("%d queues stay", len(d.queues))
	}
}

// TestTooManyKeys: a request beyond the bound is refused as a whole.
func TestTooManyKeys(t *testing.T) {
	d := newDesk(t)
	if err := d.Ask(t.Context(), berlin, &wire.Ask{Keys: make([]string, wire.MaxAsk+1)}); err == nil {
		t.Error("no error")
	}
	d.Wait()
	if len(d.sent) != 0 {
		t.Error("it was answered")
	}
}

// TestLifeCoversTheNextWindow: URLs live for a day, or until an hour after the
// next window of the site ends, at most as long as S3 signs.
func TestLifeCoversTheNextWindow(t *testing.T) {
	d := newDesk(t)
	for windows, want := range map[string]time.Duration{
		"":                    24 * time.Hour,
		"mon-sun 22:00-04:00": 24 * time.Hour,
		"tue 22:00-04:00":     41 * time.Hour,
		"fri all":             109 * time.Hour,
	} {
		d.fleet.Sites[0].Placements[0].Windows = windows
		if got := d.urlLife(berlin); got != want {
			t.Errorf("windows %q: %v, want %v", windows, got, want)
		}
	}
	if got := d.urlLife(osaka); got != minLife {
		t.Errorf("a site that is not configured: %v", got)
	}
}
