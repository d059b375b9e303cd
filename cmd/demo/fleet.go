package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/testbed"
	"nightferry/internal/trust"
)

// site is a site of the demo's fleet.
type site struct{ name, domain, region, zone, rate string }

// fleetSites returns the sites. The one to be killed is slow, so that the kill hits its transfer.
func fleetSites() []site {
	return []site{
		{"berlin", "corp", "emea", "Europe/Berlin", ""},
		{"cape-town", "plant", "emea", "Africa/Johannesburg", ""},
		{"chicago", "corp", "amer", "America/Chicago", ""},
		{"lima", "plant", "amer", "America/Lima", ""},
		{"osaka", "plant", "ap", "Asia/Tokyo", "1MB"},
		{"perth", "corp", "ap", "Australia/Perth", ""},
	}
}

const (
	killedSite = "osaka"
	middle     = 2 << 20 // bytes staged before the kill
)

// fleet is the second part of the demo: a Core and six agents, each in its own process.
type fleet struct {
	d      *demo
	tools  tools
	dir    string
	config string
	list   []site
	door   string // the console's address; empty: it is off
	core   *daemon
	agents map[string]*daemon
}

// fleet runs this part. With stay, it keeps the fleet running until ctx ends.
func (d *demo) fleet(ctx context.Context, t tools, o bucket.Options, url string, stay bool) (err error) {
	f := &fleet{d: d, tools: t, dir: filepath.Join(d.dir, "fleet"), list: fleetSites(), agents: map[string]*daemon{}}
	f.config = filepath.Join(f.dir, "core", "nightferry.yaml")
	f.tools.env = append(os.Environ(), "AWS_ACCESS_KEY_ID="+o.AccessKey, "AWS_SECRET_ACCESS_KEY="+o.SecretKey,
		"NIGHTFERRY_CONFIG="+f.config, "NIGHTFERRY_STATE="+filepath.Join(f.dir, "state"))
	defer f.stop()
	if stay {
		if f.door, err = testbed.Address(); err != nil {
			return err
		}
	}
	for _, act := range []func(context.Context) error{
		func(ctx context.Context) error { return f.startCore(ctx, url) },
		f.enrol, f.publish, f.killOne,
		func(ctx context.Context) error { return f.settled(ctx, 2) },
		f.table,
	} {
		if err := act(ctx); err != nil {
			return f.explain(err)
		}
	}
	if stay {
		return f.stay(ctx, "status", "sites", "runs", "where package/net/ip.go", "sync --site perth --follow", "logs")
	}
	return nil
}

// explain adds the last log lines of processes that have ended to an error.
func (f *fleet) explain(err error) error {
	if f.core != nil && f.core.ended() {
		err = fmt.Errorf("%w; the Core ended, its last words: %s", err, last(f.core.log))
	}
	for name, a := range f.agents {
		if a.ended() {
			err = fmt.Errorf("%w; the agent of %s ended, its last words: %s", err, name, last(a.log))
		}
	}
	return err
}

func (f *fleet) startCore(ctx context.Context, url string) error {
	f.d.say("\nNow a fleet: a Core, and six sites in three regions and two domains, each a\nprocess of its own. The Core gets its keys, and a repository:")
	core := filepath.Dir(f.config)
	f.d.command("core init core --store s3://demo/fleet --create-repository")
	if _, err := f.tools.ask(ctx, "", f.tools.core, "core", "init", core, "--store", url, "--create-repository", "--host", "127.0.0.1"); err != nil {
		return err
	}
	control, err := testbed.Address()
	if err != nil {
		return err
	}
	if err := os.WriteFile(f.config, []byte(f.yaml(url, control)), 0o600); err != nil {
		return err
	}
	f.d.command("core run")
	if f.core, err = f.tools.start(filepath.Join(f.dir, "core.log"), f.tools.core, "core", "run"); err != nil {
		return err
	}
	return f.answers(ctx)
}

// answers waits until the Core answers requests.
func (f *fleet) answers(ctx context.Context) error {
	return until(ctx, time.Minute, 100*time.Millisecond, "the start of the Core", func() (bool, error) {
		if f.core.ended() {
			return false, errors.New("it ended")
		}
		_, err := f.tools.ask(ctx, "", f.tools.core, "status")
		return err == nil, err
	})
}

// yaml returns the configuration. It would not be much longer for seventy sites.
func (f *fleet) yaml(url, control string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "version: 1\nstore: %s\ndata: %s\nlog_folder: %s\n", quote(url), quote(filepath.Join(f.dir, "core", "data")), quote(filepath.Join(f.dir, "core", "logs")))
	fmt.Fprintf(&b, "public: ['tls://%s']\nlisten: {control: '%s', websocket: off, metrics: off, console: '%s'}\nchannels:\n", control, control, f.console())
	for _, c := range f.d.channels {
		fmt.Fprintf(&b, "  %s: {source: %s, links: skip}\n", c.name, quote(c.source))
	}
	b.WriteString("defaults:\n  targets:\n")
	for _, c := range f.d.channels {
		fmt.Fprintf(&b, "    %s: %s\n", c.name, quote(filepath.Join(f.dir, "{site}", c.name)))
	}
	b.WriteString("regions: {ap: {}, emea: {}, amer: {}}\ndomains: {corp: {}, plant: {}}\nsites:\n")
	for _, s := range f.list {
		rate := ""
		if s.rate != "" {
			rate = ", rate: " + s.rate
		}
		fmt.Fprintf(&b, "  %s: {domain: %s, region: %s, zone: %s%s}\n", s.name, s.domain, s.region, s.zone, rate)
	}
	return b.String()
}

// quote returns s as a quoted YAML string.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

func (f *fleet) enrol(ctx context.Context) error {
	f.d.say("\nEach site joins with a token that is good once; its key never leaves it:")
	f.d.command("site token berlin > berlin.token")
	f.d.say("  $ nightferry-agent enroll --token-file berlin.token --allow /srv")
	if err := f.join(ctx); err != nil {
		return err
	}
	for _, s := range f.list {
		if err := f.startAgent(s.name); err != nil {
			return err
		}
	}
	return nil
}

// join enrolls every site.
func (f *fleet) join(ctx context.Context) error {
	for _, s := range f.list {
		var token string
		err := until(ctx, time.Minute, 100*time.Millisecond, "the token for "+s.name, func() (ok bool, err error) {
			token, err = f.tools.ask(ctx, "", f.tools.core, "site", "token", s.name)
			return err == nil, err // a Core that has just started returns an error
		})
		if err != nil {
			return err
		}
		root := filepath.Join(f.dir, s.name)
		if err := os.MkdirAll(root, 0o755); err != nil {
			return err
		}
		if _, err := f.tools.ask(ctx, token, f.tools.agent, "enroll", "--token-file", "-", "--allow", root, "--state", f.state(s.name)); err != nil {
			return err
		}
	}
	return nil
}

func (f *fleet) state(site string) string { return filepath.Join(f.dir, "state-"+site) }

func (f *fleet) startAgent(site string) (err error) {
	f.agents[site], err = f.tools.start(filepath.Join(f.dir, site+".log"), f.tools.agent, "run", "--state", f.state(site))
	return err
}

func (f *fleet) publish(ctx context.Context) error {
	f.d.say("\nThe Core publishes; every site converges by itself:")
	args := []string{"publish"}
	for _, c := range f.d.channels {
		args = append(args, c.name)
	}
	f.d.command("%s", strings.Join(args, " "))
	_, err := f.tools.ask(ctx, "", f.tools.core, args...)
	return err
}

// killOne kills an agent in the middle of a transfer and restarts it.
func (f *fleet) killOne(ctx context.Context) error {
	err := until(ctx, time.Minute, 20*time.Millisecond, "the transfer to "+killedSite, func() (bool, error) {
		n, err := stagedBytes(filepath.Join(f.dir, killedSite))
		return n > middle, err
	})
	if err != nil {
		return err
	}
	f.agents[killedSite].kill()
	n, err := stagedBytes(filepath.Join(f.dir, killedSite))
	if err != nil {
		return err
	}
	f.d.say("\nSIGKILL for the agent of %s in the middle of its transfer: %s lie\nstaged, no file is visible yet. It starts again, and goes on from there.", killedSite, size(n))
	return f.startAgent(killedSite)
}

// stagedBytes returns the size of all staged files of a site.
func stagedBytes(root string) (n int64, err error) {
	err = filepath.WalkDir(root, func(name string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.Contains(name, filepath.Join(".nightferry", "stage")) {
			return nil // files appear and disappear while the agent works
		}
		if info, err := e.Info(); err == nil {
			n += info.Size()
		}
		return nil
	})
	return n, err
}

// siteLine is a site in the output of nightferry sites --json, with the fields that the demo needs.
type siteLine struct {
	Event    string
	Site     string
	Domain   string
	Region   string
	Channels []struct {
		Channel string
		Holds   trust.ReleaseNumber
		State   string
		Run     string
		LastEnd string `json:"last_end"`

		Progress *struct {
			BytesDone  int64 `json:"bytes_done"`
			BytesTotal int64 `json:"bytes_total"`
		}
	}
}

func (f *fleet) sites(ctx context.Context) (all []siteLine, err error) {
	return all, f.lines(ctx, func(b []byte) error {
		var s siteLine
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
		if s.Event == "site" {
			all = append(all, s)
		}
		return nil
	}, "sites", "--json")
}

func (f *fleet) lines(ctx context.Context, fn func([]byte) error, args ...string) error {
	text, err := f.tools.ask(ctx, "", f.tools.core, args...)
	if err != nil {
		return err
	}
	for l := range strings.Lines(text) {
		if err := fn([]byte(l)); err != nil {
			return fmt.Errorf("read the answer of %s: %w", args[0], err)
		}
	}
	return nil
}

// settled waits until every site is current in that number of channels.
func (f *fleet) settled(ctx context.Context, channels int) error {
	return until(ctx, 3*time.Minute, 500*time.Millisecond, "the convergence of the fleet", func() (bool, error) {
		all, err := f.sites(ctx)
		if err != nil {
			return false, err
		}
		for _, s := range all {
			if len(s.Channels) != channels {
				return false, nil
			}
			for _, c := range s.Channels {
				if c.State != "current" {
					return false, fmt.Errorf("%s at %s is %s", c.Channel, s.Site, c.State)
				}
			}
		}
		return len(all) == len(f.list), nil
	})
}

// runLine is a run in the output of nightferry runs --json.
type runLine struct {
	Event   string
	ID      string
	Site    string
	Channel string
	State   string
	Totals  struct{ Files, Bytes, Fetched int64 }
}

func (f *fleet) table(ctx context.Context) error {
	sites, err := f.sites(ctx)
	if err != nil {
		return err
	}
	runs := map[string]runLine{}
	err = f.lines(ctx, func(b []byte) error {
		var r runLine
		err := json.Unmarshal(b, &r)
		runs[r.ID] = r
		return err
	}, "runs", "--json")
	if err != nil {
		return err
	}
	f.d.say("\nThe fleet:")
	f.d.say("  %-10s %-6s %-6s %-8s %7s %6s %9s %9s %s", "site", "domain", "region", "channel", "release", "files", "fetched", "held", "verdict")
	for _, s := range sites {
		for _, c := range s.Channels {
			r, ok := runs[c.Run]
			if !ok || r.State != "verified" {
				return fmt.Errorf("%s at %s: its run %s is %q", c.Channel, s.Site, c.Run, r.State)
			}
			f.d.say("  %-10s %-6s %-6s %-8s %7d %6d %9s %9s %s", s.Site, s.Domain, s.Region, c.Channel, c.Holds, r.Totals.Files, size(r.Totals.Fetched), size(r.Totals.Bytes-r.Totals.Fetched), r.State)
		}
	}
	f.d.say("\n  fetched: bytes of content from the bucket; held: bytes that were there already")
	return nil
}

// console returns the setting of the console's address.
func (f *fleet) console() string {
	if f.door == "" {
		return "off"
	}
	return f.door
}

// stay prints a link to the console and commands to try, and waits for Ctrl-C.
func (f *fleet) stay(ctx context.Context, commands ...string) error {
	link, err := f.tools.ask(ctx, "", f.tools.core, "console", "link")
	if err != nil {
		return err
	}
	f.d.say("\nThe console is at https://%s. Its certificate is the demo's own, so the browser\nasks whether to go on. This link signs you in, once, within five minutes:", f.door)
	f.d.say("  %s", strings.TrimSpace(link))
	f.d.say("\nThe fleet stays up until Ctrl-C. In another terminal:")
	f.d.say("  export NIGHTFERRY_CONFIG=%s", f.config)
	for _, c := range commands {
		f.d.say("  %s %s", f.tools.core, c)
	}
	f.d.say("  %s console link", f.tools.core)
	<-ctx.Done()
	return nil
}
