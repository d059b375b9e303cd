//go:build linux

package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nightferry/internal/s3test"
	"nightferry/internal/testbed"
)

// site is one agent, with the line to its Core.
type site struct {
	*daemon
	site, domain, region string
	root, state          string
	control              *line
}

// world is a Core, its agents and the lines between them.
type world struct {
	t        *testing.T
	dir      string
	env      []string
	storeURL string // bypasses the line
	core     *daemon
	sites    []*site
	control  *line // for sites that are not yet enrolled
	content  *line // from all sites to the store
	channels []*content
}

func newWorld(t *testing.T, sites int) *world {
	dir, err := os.MkdirTemp("", "chaos") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !t.Failed() {
			_ = os.RemoveAll(dir)
			return
		}
		t.Logf("logs and state are kept in %s", dir)
	})
	b := s3test.S3(t)
	w := &world{t: t, dir: dir, storeURL: b.URL("fleet")}
	w.content = newLine(t, host(t, b.Endpoint))
	far := b
	far.Endpoint = "http://" + w.content.addr
	conf := filepath.Join(dir, "core", "nightferry.yaml")
	w.env = append(append(os.Environ(), b.Env()...), "NIGHTFERRY_CONFIG="+conf, "NIGHTFERRY_STATE="+filepath.Join(dir, "cli"))
	w.core = &daemon{name: "the Core", args: []string{"nightferry", "core", "run"}, env: w.env, log: filepath.Join(dir, "core.log")}
	t.Cleanup(w.killAll)

	addr, err := testbed.Address() // stays the same across restarts
	if err != nil {
		t.Fatal(err)
	}
	w.control = newLine(t, addr)
	w.must("core", "init", filepath.Join(dir, "core"), "--store", far.URL("fleet"), "--create-repository", "--host", "127.0.0.1")
	for i := range sites {
		name := fmt.Sprintf("site-%02d", i)
		w.sites = append(w.sites, &site{site: name, domain: domains[i%len(domains)], region: regions[i%len(regions)],
			root: filepath.Join(dir, "sites", name), state: filepath.Join(dir, "agents", name), control: newLine(t, addr)})
	}
	w.channels = []*content{newContent(filepath.Join(dir, "content", "driver"), "driver"), newContent(filepath.Join(dir, "content", "package"), "package")}
	if err := os.WriteFile(conf, []byte(w.yaml(far.URL("fleet"), addr)), 0o600); err != nil {
		t.Fatal(err)
	}
	return w
}

var (
	domains = []string{"corp", "plant"}
	regions = []string{"ap", "emea", "amer"}
)

func (w *world) yaml(store, addr string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "version: 1\nstore: '%s'\ndata: '%s'\nlog_folder: '%s'\n", store, filepath.Join(w.dir, "core", "data"), filepath.Join(w.dir, "logs"))
	fmt.Fprintf(&b, "public: ['tls://%s']\nlisten: {control: '%s', websocket: off, metrics: off}\nchannels:\n", w.control.addr, addr)
	for _, c := range w.channels {
		// Keep every release, so that every run can be shown. The log of one channel lists every file.
		fmt.Fprintf(&b, "  %s: {source: '%s', max_delete: 90%%, keep: 1000, log_unchanged: %v}\n", c.name, c.dir, c.name == "driver")
	}
	b.WriteString("defaults:\n  targets:\n")
	for _, c := range w.channels {
		fmt.Fprintf(&b, "    %s: '%s'\n", c.name, filepath.Join(w.dir, "sites", "{site}", c.name))
	}
	b.WriteString("regions: {ap: {rate: 2MB}, emea: {}, amer: {rate: 6MB}}\ndomains: {corp: {}, plant: {}}\nsites:\n")
	for _, s := range w.sites {
		fmt.Fprintf(&b, "  %s: {domain: %s, region: %s, zone: Europe/Berlin}\n", s.site, s.domain, s.region)
	}
	return b.String()
}

func host(t *testing.T, endpoint string) string {
	t.Helper()
	u, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}

// must runs a command of the Core that has to succeed.
func (w *world) must(args ...string) string {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*time.Minute)
	defer cancel()
	out, err := ask(ctx, w.env, append([]string{"nightferry"}, args...)...)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// lines runs must with --json, and returns the objects with that event.
func lines[T any](w *world, event string, args ...string) (all []T) {
	w.t.Helper()
	for l := range strings.Lines(w.must(append(args, "--json")...)) {
		var head struct{ Event string }
		var v T
		if err := errors.Join(json.Unmarshal([]byte(l), &head), json.Unmarshal([]byte(l), &v)); err != nil {
			w.t.Fatalf("%v: %q: %v", args, l, err)
		}
		if head.Event == event {
			all = append(all, v)
		}
	}
	return all
}

// serves waits until the Core responds.
func (w *world) serves() {
	w.t.Helper()
	within(w.t, time.Minute, "the Core serves", func() (bool, error) {
		if err := w.core.start(); err != nil {
			return false, err
		}
		_, err := ask(w.t.Context(), w.env, "nightferry", "status")
		return err == nil, err
	})
}

// join enrols every site, and then gives each its own line.
func (w *world) join() {
	w.t.Helper()
	tokens := filepath.Join(w.dir, "tokens")
	w.must("site", "token", "--wave", fmt.Sprint(len(w.sites)), "--out", tokens)
	for _, s := range w.sites {
		if err := os.MkdirAll(s.root, 0o755); err != nil {
			w.t.Fatal(err)
		}
		_, err := ask(w.t.Context(), w.env, "nightferry-agent", "enroll", "--token-file", filepath.Join(tokens, s.site+".token"), "--allow", s.root, "--state", s.state)
		if err != nil {
			w.t.Fatal(err)
		}
		file := filepath.Join(s.state, "site.json")
		b, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(b), w.control.addr) {
			w.t.Fatalf("%s: %v: %s", file, err, b)
		}
		if err := os.WriteFile(file, []byte(strings.ReplaceAll(string(b), w.control.addr, s.control.addr)), 0o600); err != nil {
			w.t.Fatal(err)
		}
		s.daemon = &daemon{name: s.site, args: []string{"nightferry-agent", "run", "--state", s.state}, env: w.env, log: filepath.Join(w.dir, s.site+".log")}
		if err := s.start(); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) all() []*daemon {
	d := []*daemon{w.core}
	for _, s := range w.sites {
		if s.daemon != nil {
			d = append(d, s.daemon)
		}
	}
	return d
}

func (w *world) killAll() {
	for _, d := range w.all() {
		if err := d.signal(os.Kill); err != nil {
			w.t.Error(err)
		}
	}
}
