package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"nightferry/internal/s3test"
	"nightferry/internal/testbed"
	"nightferry/internal/window"
)

// nightSites returns six sites in three regions and two domains, with names that fit a column.
func nightSites() []site {
	return []site{
		{"tokyo", "corp", "ap", "Asia/Tokyo", ""}, {"osaka", "plant", "ap", "Asia/Tokyo", ""},
		{"berlin", "corp", "emea", "Europe/Berlin", ""}, {"paris", "plant", "emea", "Europe/Paris", ""},
		{"dallas", "corp", "amer", "America/Chicago", ""}, {"austin", "plant", "amer", "America/Chicago", ""},
	}
}

// nightRegion is a region in the view.
type nightRegion struct {
	name, zone, windows string
	place               window.Place
	rule                window.Rule
	sites               []string
	first               window.Window // first window of the night
}

const (
	nightRate   = 2_000_000 // bytes per second and site
	nightReport = "05:30"   // local time of each region
	apWindows   = "21:00-22:15 23:15-05:00"
	windows     = "22:00-05:00"
	haltQuiet   = 2 * time.Second  // without a byte: the halt has stopped all transfers
	haltPoll    = 4 << 10          // bytes at once: a site that reads the halt object in the store moves fewer
	haltLimit   = 20 * time.Second // after which they count as not stopped
)

// night is the second show of the demo: one night in fast motion.
type night struct {
	f       *fleet
	wire    *s3test.Wire
	speed   int64
	motion  window.Motion
	regions []*nightRegion
	source  string
	mails   string
	bytes   int64 // size of the content
	seen    map[string]string
	view    view
	verdict []scene
}

// scene is one row of the verdict.
type scene struct {
	what, proof string
	ok          bool
}

// Below minSpeed the demo takes too long. Above maxSpeed, windows close before anything can happen in them.
const (
	minSpeed = 120
	maxSpeed = 2400
)

// night runs the show.
func (d *demo) night(ctx context.Context, t tools, g *s3test.Gateway, speed int64, stay bool) (err error) {
	wire, err := s3test.StartWire(g.Endpoint)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, wire.Close()) }()
	server := g.Server
	server.Endpoint = wire.Endpoint
	f := &fleet{d: d, tools: t, dir: filepath.Join(d.dir, "night"), list: nightSites(), agents: map[string]*daemon{}}
	f.config = filepath.Join(f.dir, "core", "nightferry.yaml")
	if stay {
		if f.door, err = testbed.Address(); err != nil {
			return err
		}
	}
	f.tools.env = append(os.Environ(), "AWS_ACCESS_KEY_ID="+server.AccessKey, "AWS_SECRET_ACCESS_KEY="+server.SecretKey,
		"NIGHTFERRY_CONFIG="+f.config, "NIGHTFERRY_STATE="+filepath.Join(f.dir, "state"))
	defer f.stop()
	n := &night{f: f, wire: wire, speed: speed, source: filepath.Join(f.dir, "source"), mails: filepath.Join(f.dir, "mails"), seen: map[string]string{}}
	for _, act := range []func(context.Context) error{
		func(ctx context.Context) error { return n.prepare(ctx, server.URL("demo", "night")) },
		n.publish, n.asia, n.corrupt, n.halt, n.america, n.morning,
	} {
		if err := act(ctx); err != nil {
			n.verdicts()
			return f.explain(err)
		}
	}
	n.verdicts()
	if stay {
		return f.stay(ctx, "status", "sites", "runs", "plan --days 2", "incidents --all", "halt --all --reason 'a drill'")
	}
	for _, s := range n.verdict {
		if !s.ok {
			return fmt.Errorf("it did not hold: %s: %s", s.what, s.proof)
		}
	}
	return nil
}

// stop stops all processes of the fleet.
func (f *fleet) stop() {
	var all sync.WaitGroup
	for _, a := range f.agents {
		all.Go(a.stop)
	}
	all.Wait()
	if f.core != nil {
		f.core.stop()
	}
}

// prepare creates content, Core and sites, and then starts the clock.
func (n *night) prepare(ctx context.Context, url string) error {
	d := n.f.d
	evening, err := n.readRegions()
	if err != nil {
		return err
	}
	// More than the first window of Asia can transfer, so that its sites must continue in the next.
	first := n.regions[0].first
	n.bytes = int64(first.Length().Seconds() / float64(n.speed) * nightRate * 13 / 10)
	if err := makeContent(n.source, n.bytes); err != nil {
		return err
	}
	d.say("\nA night in fast motion, %d times as fast: an hour takes %.1f s. A Core, and six\nsites in three regions and two domains, each a process of its own; each moves\ncontent in its own night only:", n.speed, 3600/float64(n.speed))
	for _, r := range n.regions {
		d.say("  %-5s %-16s %-24s %s", r.name, r.zone, r.windows, strings.Join(r.sites, ", "))
	}
	control, err := testbed.Address()
	if err != nil {
		return err
	}
	core := filepath.Dir(n.f.config)
	if _, err := n.f.tools.ask(ctx, "", n.f.tools.core, "core", "init", core, "--store", url, "--create-repository", "--host", "127.0.0.1"); err != nil {
		return err
	}
	if err := os.WriteFile(n.f.config, []byte(n.yaml(url, control)), 0o600); err != nil {
		return err
	}
	// Sites enroll at normal speed; the rehearsal's clock starts afterwards.
	begin := first.Start.Add(-time.Hour - max(time.Hour, 4*time.Second*time.Duration(n.speed))).UTC()
	if err := n.startCore(ctx, begin.Add(-24*time.Hour), 1); err != nil {
		return err
	}
	if err := n.f.join(ctx); err != nil {
		return err
	}
	n.f.core.stop()
	d.say("\nThe clock starts. Content is published by itself, an hour before the first\nwindow opens:")
	d.command("core run --rehearse %s@%d", begin.Format(time.RFC3339), n.speed)
	if err := n.startCore(ctx, begin, n.speed); err != nil {
		return err
	}
	for _, s := range n.f.list {
		if err := n.f.startAgent(s.name); err != nil {
			return err
		}
	}
	if err := n.readClock(ctx); err != nil {
		return err
	}
	if at := n.now(); at.After(evening) {
		return fmt.Errorf("this machine needed until %s to begin: take a lower --speed", at.Format("15:04"))
	}
	n.view.head(d, n.regions)
	return nil
}

// readRegions computes the regions' windows and returns the time at which the first one opens.
func (n *night) readRegions() (time.Time, error) {
	tomorrow := time.Now().UTC().AddDate(0, 0, 1)
	noon := time.Date(tomorrow.Year(), tomorrow.Month(), tomorrow.Day(), 10, 30, 0, 0, time.UTC)
	for _, s := range n.f.list {
		if k := len(n.regions) - 1; k >= 0 && n.regions[k].name == s.region {
			n.regions[k].sites = append(n.regions[k].sites, s.name)
			continue
		}
		r := &nightRegion{name: s.region, zone: s.zone, windows: windows, sites: []string{s.name}}
		if r.name == "ap" {
			r.windows = apWindows
		}
		var err error
		if r.place.Zone, err = time.LoadLocation(s.zone); err == nil {
			r.rule, err = window.ParseRule(r.windows)
		}
		if err != nil {
			return time.Time{}, err
		}
		r.first, _ = window.Next(noon, r.place, r.rule)
		n.regions = append(n.regions, r)
	}
	return n.regions[0].first.Start, nil
}

func (n *night) yaml(url, control string) string {
	var b strings.Builder
	f := n.f
	fmt.Fprintf(&b, "version: 1\nstore: %s\ndata: %s\nlog_folder: %s\n", quote(url), quote(filepath.Join(f.dir, "core", "data")), quote(filepath.Join(f.dir, "core", "logs")))
	fmt.Fprintf(&b, "public: ['tls://%s']\nlisten: {control: '%s', websocket: off, metrics: off, console: '%s'}\n", control, control, f.console())
	fmt.Fprintf(&b, "channels:\n  package: {source: %s, cadence: daily 1h before first window}\n", quote(n.source))
	fmt.Fprintf(&b, "defaults:\n  rate: 2MB\n  targets: {package: %s}\nregions:\n", quote(filepath.Join(f.dir, "{site}", "package")))
	for _, r := range n.regions {
		fmt.Fprintf(&b, "  %s: {windows: '%s'}\n", r.name, r.windows)
	}
	b.WriteString("domains: {corp: {}, plant: {}}\nsites:\n")
	for _, s := range f.list {
		fmt.Fprintf(&b, "  %s: {domain: %s, region: %s, zone: %s}\n", s.name, s.domain, s.region, s.zone)
	}
	fmt.Fprintf(&b, "alerts:\n  to: [ops@example.com]\n  smtp: {folder: %s, from: nightferry@example.com}\n  regions:\n", quote(n.mails))
	for _, r := range n.regions {
		fmt.Fprintf(&b, "    %s: {report: %s %s}\n", r.name, nightReport, r.zone)
	}
	return b.String()
}

func (n *night) startCore(ctx context.Context, at time.Time, speed int64) (err error) {
	f := n.f
	if f.core, err = f.tools.start(filepath.Join(f.dir, "core.log"), f.tools.core, "core", "run", "--rehearse", fmt.Sprintf("%s@%d", at.Format(time.RFC3339), speed)); err != nil {
		return err
	}
	return f.answers(ctx)
}

// readClock asks the Core for the time and speed of its rehearsal.
func (n *night) readClock(ctx context.Context) error {
	before := time.Now()
	var s struct {
		Rehearsal struct {
			Time  time.Time
			Speed int64
		}
	}
	text, err := n.f.tools.ask(ctx, "", n.f.tools.core, "status", "--json")
	if err == nil {
		line, _, _ := strings.Cut(text, "\n")
		err = json.Unmarshal([]byte(line), &s)
	}
	if err != nil {
		return fmt.Errorf("ask the Core for its time: %w", err)
	}
	after := time.Now()
	n.motion = window.Motion{From: before.Add(after.Sub(before) / 2), To: s.Rehearsal.Time, Speed: s.Rehearsal.Speed}
	return nil
}

// now returns the time in the rehearsal.
func (n *night) now() time.Time { return n.motion.At(time.Now()).UTC() }

// holds adds a row to the verdict.
func (n *night) holds(ok bool, what, proof string, args ...any) {
	n.verdict = append(n.verdict, scene{what, fmt.Sprintf(proof, args...), ok})
}

func (n *night) verdicts() {
	n.f.d.say("\nThe night:")
	for _, s := range n.verdict {
		word := "yes"
		if !s.ok {
			word = "NO"
		}
		n.f.d.say("  %-3s %-34s %s", word, s.what, s.proof)
	}
}
