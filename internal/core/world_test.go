package core_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/bus"
	"nightferry/internal/core"
	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/query"
	"nightferry/internal/repo"
	"nightferry/internal/s3test"
	"nightferry/internal/testbed"
	"nightferry/internal/vault"
)

// patience bounds every wait; nothing waits that long unless it fails.
const patience = 60 * time.Second

// world is a Core with all that it needs: a real bus, ledger and vault, and a
// real S3 server.
type world struct {
	t        *testing.T
	dir      string
	source   string // of channel package
	bucket   s3test.Bucket
	store    bucket.Store
	root     ed25519.PrivateKey
	release  ed25519.PrivateKey
	repoKey  []byte
	options  core.Options
	settings core.Settings
	core     *core.Core
	purged   int64 // the last purge before this Core began
	stop     func()

	mu     sync.Mutex
	events []core.Event
	more   chan struct{}
	log    strings.Builder // all that the process would have logged
	ahead  atomic.Int64    // of the Core's clock, and of the store's
	wrong  atomic.Int64    // of the Core's clock alone
	agents []func()        // stop the real agents
}

func (w *world) now() time.Time {
	return time.Now().Add(time.Duration(w.ahead.Load() + w.wrong.Load()))
}

// right is the time that the store shows, and whoever's clock is right.
func (w *world) right() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }

// newWorld makes a Core over three sites in two domains, and starts it.
func newWorld(t *testing.T, repoKey []byte) *world {
	t.Helper()
	return newWorldWith(t, repoKey, func(*world) {})
}

// newWorldWith lets change say how the Core differs.
func newWorldWith(t *testing.T, repoKey []byte, change func(*world)) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), repoKey: repoKey, more: make(chan struct{}, 1)}
	w.source = filepath.Join(w.dir, "source")
	w.bucket = s3test.S3(t)
	w.store = w.bucket.Open(t)
	_, w.root, _ = ed25519.GenerateKey(nil)
	_, w.release, _ = ed25519.GenerateKey(nil)
	if _, err := repo.Init(t.Context(), w.store, repo.InitOptions{Root: w.root, Release: w.release, Key: repoKey, Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	master := vault.NewMaster()
	store := w.bucket.Options()
	data := filepath.Join(w.dir, "core")
	if _, err := core.Init(t.Context(), core.InitOptions{Data: data, Master: master, StoreURL: w.bucket.URL(""), Store: store, Release: w.release, RepoKey: repoKey, Now: time.Now}); err != nil {
		t.Fatal(err)
	}
	credentials := store.AccessKey + "\n" + store.SecretKey + "\n"
	store.AccessKey, store.SecretKey = "", ""
	addr, err := testbed.Address()
	if err != nil {
		t.Fatal(err)
	}
	webSocket, err := testbed.Address()
	if err != nil {
		t.Fatal(err)
	}
	w.options = core.Options{
		Data: data, Master: master, StoreURL: w.bucket.URL(""), Store: store, Addr: addr, WebSocketAddr: webSocket,
		Version: "test", Now: w.now, Beat: 2 * time.Second, Poll: 500 * time.Millisecond,
		OnEvent: w.hear, BusLog: func(_ bus.Level, s string) { w.note("bus: " + s) },
	}
	w.options.StoreAhead(func() time.Duration { return time.Duration(w.ahead.Load()) })
	w.settings = core.Settings{Fleet: testFleet(w.source, w.dir), Retention: ledger.Retention{Logs: 30 * 24 * time.Hour, Runs: 400 * 24 * time.Hour}}
	w.secret(core.SecretStore, credentials)
	change(w)
	w.start()
	t.Cleanup(func() { w.stop() })
	return w
}

// secret stores a secret in the vault of a Core that is stopped.
func (w *world) secret(name, value string) {
	w.t.Helper()
	f, err := core.OpenOffline(w.t.Context(), w.options.Data, w.options.Master, time.Now)
	if err != nil {
		w.t.Fatal(err)
	}
	_, err = f.Vault.Set(w.t.Context(), name, []byte(value))
	if err := errors.Join(err, f.Close()); err != nil {
		w.t.Fatal(err)
	}
}

func testFleet(source, dir string) *fleet.Fleet {
	f := &fleet.Fleet{
		Channels: []fleet.Channel{
			{Name: "driver", Source: filepath.ToSlash(source) + "-driver", Links: fleet.Refuse, MaxDelete: 50, Keep: 10},
			{Name: "package", Source: filepath.ToSlash(source), Links: fleet.Refuse, MaxDelete: 50, Keep: 10},
		},
		Domains: []fleet.Domain{{Name: "apac"}, {Name: "corp"}},
		Regions: []fleet.Region{{Name: "ap"}, {Name: "emea"}},
	}
	for _, s := range []struct{ name, domain, region string }{{"berlin", "corp", "emea"}, {"osaka", "apac", "ap"}, {"tokyo", "apac", "ap"}} {
		f.Sites = append(f.Sites, fleet.Site{Name: s.name, Domain: s.domain, Region: s.region, Zone: "UTC", Location: time.UTC,
			Placements: []fleet.Placement{{Channel: "package", Target: filepath.ToSlash(filepath.Join(dir, "sites", s.name, "package"))}}})
	}
	// Only berlin has drivers.
	f.Sites[0].Placements = append([]fleet.Placement{{Channel: "driver", Target: filepath.ToSlash(filepath.Join(dir, "sites", "berlin", "driver"))}}, f.Sites[0].Placements...)
	return f
}

func (w *world) start() {
	w.t.Helper()
	c, err := core.Open(w.t.Context(), w.options, w.settings)
	if err != nil {
		w.t.Fatal(err)
	}
	w.core = c
	w.purged = w.purges()
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	select {
	case <-c.Ready():
	case err := <-done:
		w.t.Fatal("the Core did not start:", err)
	case <-time.After(patience):
		w.t.Fatal("the Core did not start")
	}
	w.options.Addr, w.options.WebSocketAddr = c.Addr(), c.WebSocketAddr() // to come back at the same place
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-done, c.Close()); err != nil {
			w.t.Error(err)
		}
	})
}

func (w *world) restart() {
	w.t.Helper()
	w.stop()
	w.start()
}

func (w *world) hear(e core.Event) {
	b, _ := json.Marshal(e)
	w.note(string(b))
	w.mu.Lock()
	w.events = append(w.events, e)
	w.mu.Unlock()
	select {
	case w.more <- struct{}{}:
	default:
	}
}

func (w *world) note(line string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log.WriteString(line + "\n")
}

// until waits for a condition, looking again at every event and now and then.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	end := time.Now().Add(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(end) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.t.Fatalf("waited in vain for %s; log:\n%s", what, w.log.String())
		}
		select {
		case <-w.more:
		case <-tick.C:
		}
	}
}

// untilIncident waits for an open incident of a kind, and returns its text.
func (w *world) untilIncident(kind string) string {
	w.t.Helper()
	text := ""
	w.until("an incident of kind "+kind, func() bool {
		list, err := w.core.Query.Incidents(w.t.Context(), false)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, i := range list {
			if i.Kind == kind {
				text = i.Text
				return true
			}
		}
		return false
	})
	return text
}

// untilDeed waits for an audit record.
func (w *world) untilDeed(what, detail string) {
	w.t.Helper()
	w.until(fmt.Sprintf("the audit of %q", what), func() bool {
		list, err := w.core.Query.Deeds(w.t.Context(), ledger.DeedFilter{What: what})
		if err != nil {
			w.t.Fatal(err)
		}
		for _, d := range list {
			if strings.Contains(d.Detail, detail) {
				return true
			}
		}
		return false
	})
}

// purges numbers the last purge: the audit forgets, too.
func (w *world) purges() int64 {
	w.t.Helper()
	list, err := w.core.Query.Deeds(w.t.Context(), ledger.DeedFilter{What: "purge", Limit: 1})
	if err != nil {
		w.t.Fatal(err)
	}
	if len(list) == 0 {
		return 0
	}
	return list[0].ID
}

// begun waits for the upkeep with which this Core begins.
func (w *world) begun() {
	w.t.Helper()
	w.until("the upkeep with which it begins", func() bool { return w.purges() > w.purged })
}

// upkeep does what happens each hour.
func (w *world) upkeep() {
	w.t.Helper()
	w.begun()
	w.core.UpkeepNow(w.t.Context())
}

// pass lets days pass until the clocks are ahead so much. A purge goes on by two
// days at most.
func (w *world) pass(until time.Duration) {
	w.t.Helper()
	const step = 48 * time.Hour
	for left := until - time.Duration(w.ahead.Load()); left > 0; left -= step {
		w.ahead.Add(int64(min(step, left)))
		w.upkeep()
	}
}

func (w *world) write(name, content string) {
	w.t.Helper()
	path := filepath.Join(w.source, filepath.FromSlash(name))
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) publish(channel string) *core.Published {
	w.t.Helper()
	p, err := w.core.Publisher.Publish(w.t.Context(), channel, core.PublishOptions{AllowDeletes: true})
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

// logs reads all log files.
func (w *world) logs() map[string]string {
	w.t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(w.core.LogsDir(), func(p string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(p, ".jsonl") { // else it is being written
			b, err := os.ReadFile(p)
			rel, _ := filepath.Rel(w.core.LogsDir(), p)
			out[filepath.ToSlash(rel)] = string(b)
			return err
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// logsOf reads the logs of a run.
func (w *world) logsOf(run string) (all []string) {
	w.t.Helper()
	err := filepath.WalkDir(filepath.Join(w.options.Data, "logs"), func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.Contains(d.Name(), run) || !strings.HasSuffix(d.Name(), ".jsonl") {
			return err
		}
		b, err := os.ReadFile(p)
		all = append(all, string(b))
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// apart gives the test a fleet of its own to change: the Core reads the one that
// it was given until it is given another.
func (w *world) apart() *fleet.Fleet {
	f := *w.settings.Fleet
	f.Sites = slices.Clone(f.Sites)
	for i := range f.Sites {
		f.Sites[i].Placements = slices.Clone(f.Sites[i].Placements)
	}
	w.settings.Fleet = &f
	return &f
}

// texts lists the open incidents of a kind.
func (w *world) texts(kind string) (out []string) {
	w.t.Helper()
	list, err := w.core.Query.Incidents(w.t.Context(), false)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, i := range list {
		if i.Kind == kind {
			out = append(out, i.Text)
		}
	}
	return out
}

// channel is what is known of one channel at a site.
func (w *world) channel(site, channel string) query.ChannelStatus {
	w.t.Helper()
	s, err := w.core.Query.Sites(w.t.Context(), fleet.Scope{Site: site, Channel: channel})
	if err != nil || len(s) != 1 || len(s[0].Channels) != 1 {
		w.t.Fatalf("%+v, %v", s, err)
	}
	return s[0].Channels[0]
}

// remembers reports whether the Core has noted a channel's cadence.
func (w *world) remembers(channel string) bool {
	b, err := os.ReadFile(filepath.Join(w.options.Data, "state", "cadence.json"))
	return err == nil && strings.Contains(string(b), channel)
}

func (w *world) remove(name string) {
	w.t.Helper()
	if err := os.Remove(filepath.Join(w.source, filepath.FromSlash(name))); err != nil {
		w.t.Fatal(err)
	}
}
