package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"nightferry/internal/fleet"
	"nightferry/internal/policy"
)

func TestStarter(t *testing.T) {
	schema := compileSchema(t)
	for _, s := range []Starter{
		{Dir: "/srv/nightferry"},
		{Dir: `C:\ProgramData\O'Neil & {nightferry} #1`, Store: "s3://b/p?region=eu-west-1&endpoint=http://127.0.0.1:7070", Host: "fd00::1"},
	} {
		text := Default(s)
		c, err := Parse("nightferry.yaml", text)
		if err != nil {
			t.Fatalf("%+v: %v", s, err)
		}
		if err := validate(t, schema, text); err != nil {
			t.Errorf("%+v: the schema refuses the starter: %v", s, err)
		}
		if !strings.HasPrefix(c.Data, s.Dir) || !strings.HasPrefix(c.MasterKeyFile, c.Data) || len(c.Fleet.Channels) != 1 {
			t.Errorf("%+v gives %+v", s, c)
		}
		// Uncomment the lines that users are meant to uncomment.
		invited := strings.NewReplacer("sites: {}", "sites:", "#  berlin:", "  berlin:", "#  lisbon:", "  lisbon:",
			"# rate:", "rate:", "# windows:", "windows:", "# cadence:", "cadence:", "# console:", "console:", "#signin:", "signin:", "#  issuer:", "  issuer:", "#  client_id:", "  client_id:", "#  roles:", "  roles:", "#    - {value", "    - {value", "#alerts:", "alerts:", "#  to:", "  to:", "#  report:", "  report:", "#  smtp:", "  smtp:", "corp: {}", "corp:", "  #  log_readers:", "    log_readers:").Replace(string(text))
		c, err = Parse("nightferry.yaml", []byte(invited))
		if err != nil {
			t.Fatalf("with its examples: %v", err)
		}
		if len(c.Fleet.Sites) != 2 || c.Fleet.Sites[0].Rate != 2_500_000 || c.Fleet.Sites[1].Rate != 625_000 {
			t.Errorf("with its examples: %+v", c.Fleet.Sites)
		}
		if c.Listen.Console.Address == "" || c.SignIn == nil || len(c.SignIn.Roles) != 1 {
			t.Errorf("with its examples: console %+v, sign-in %+v", c.Listen.Console, c.SignIn)
		}
		if c.Fleet.Sites[0].Placements[0].Windows == "" || !c.Alerts.Rules.Mail {
			t.Errorf("with its examples: windows %+v, alerts %+v", c.Fleet.Sites[0].Placements, c.Alerts)
		}
	}
}

func TestSeventy(t *testing.T) {
	path := filepath.FromSlash("../../docs/examples/seventy.yaml")
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	text := read(t, path)
	if err := validate(t, compileSchema(t), text); err != nil {
		t.Errorf("the schema refuses it: %v", err)
	}
	f := c.Fleet
	if len(f.Sites) != 70 || len(f.Regions) != 3 || len(f.Domains) != 5 {
		t.Fatalf("%d sites, %d regions, %d domains; want 70, 3 and 5", len(f.Sites), len(f.Regions), len(f.Domains))
	}
	if lines := strings.Count(string(text), "\n"); lines > 140 {
		t.Errorf("%d lines for 70 sites: that is not about one line for each", lines)
	}
	lat, long := 9.19, 45.46
	lat, long = long, lat
	p := policy.Policy{Scrub: defaultScrub, ScrubRate: defaultScrubRate}
	partial := p
	partial.Partial = true
	at := func(s string) []fleet.Placement {
		return []fleet.Placement{
			{Channel: "driver", Target: s + "driver", Policy: p}, {Channel: "image", Target: s + "image", Policy: p},
			{Channel: "package", Target: s + "package", Policy: p}, {Channel: "patch", Target: s + "patch", Policy: partial},
		}
	}
	want := fleet.Site{Name: "milan", Domain: "emea", Region: "emea", Zone: "Europe/Rome", Latitude: &lat, Longitude: &long,
		Rate: 6_250_000, Placements: at(`D:\depot\`)}
	if diff := cmp.Diff(want, *f.Site("milan"), cmpopts.IgnoreFields(fleet.Site{}, "Location")); diff != "" {
		t.Errorf("milan (-want +got):\n%s", diff)
	}
	lima := f.Site("lima") // the domain's rate overrides the region's, the domain removes images, the site sets partial
	if lima.Rate != 1_250_000 || lima.Placement("image") != nil || !lima.Placement("package").Partial {
		t.Errorf("lima: %+v", lima)
	}
	if diff := cmp.Diff(at("/srv/depot/"), f.Site("hamburg").Placements); diff != "" {
		t.Errorf("hamburg (-want +got):\n%s", diff)
	}
	if p := f.Site("san-jose").Placement("image"); p.Target != `E:\images` || p.Rate != 25_000_000 {
		t.Errorf("san-jose: %+v", p)
	}
	if z := f.Site("auckland").Location; time.Date(2026, 1, 15, 12, 0, 0, 0, z).UTC().Hour() != 23 {
		t.Errorf("auckland's clock is wrong: %v", z)
	}
}

// TestLevels pins which level takes effect, key by key.
func TestLevels(t *testing.T) {
	c, err := Parse("x", []byte(base+`
defaults: {rate: 1MB, locked: partial, prune: true, targets: {a: '/{region}/{domain}/{site}/{channel}', b: {folder: /b, rate: 9MB}}}
regions: {r: {rate: 2MB, targets: {b: {prune: false}}}, s: {}}
domains: {d: {rate: 3MB, locked: wait, targets: {a: {locked: partial}}}, e: {targets: {a: none}}}
sites:
  one: {domain: d, region: r, zone: UTC}
  two: {domain: e, region: r, zone: UTC, rate: unlimited, prune: false}
  six: {domain: e, region: s, zone: UTC, targets: {a: /own}}
`))
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		Rate       int64
		Placements []fleet.Placement
	}
	got := map[string]row{}
	for _, s := range c.Fleet.Sites {
		got[s.Name] = row{s.Rate, s.Placements}
	}
	want := map[string]row{
		"one": {3e6, []fleet.Placement{placed("a", "/r/d/one/a", 0, "partial", true), placed("b", "/b", 9e6, "wait", false)}},
		"two": {0, []fleet.Placement{placed("b", "/b", 9e6, "partial", false)}},
		"six": {1e6, []fleet.Placement{placed("a", "/own", 0, "partial", true), placed("b", "/b", 9e6, "partial", true)}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func placed(channel, target string, rate int64, locked string, prune bool) fleet.Placement {
	return fleet.Placement{Channel: channel, Target: target, Policy: policy.Policy{Rate: rate, Partial: locked == partial, Prune: prune, Scrub: defaultScrub, ScrubRate: defaultScrubRate}}
}

const base = `version: 1
store: s3://b/p?region=x
data: /data
public: [tls://core:4222]
channels: {a: {source: /src/a}, b: {source: /src/b}}
`

const group = "regions: {r: {}}\ndomains: {d: {}}\n"

func site(rest string) string {
	return base + group + "sites: {s: {domain: d, region: r, zone: UTC, " + rest + "}}\n"
}

// TestRefused tests each kind of mistake: the whole text of the error, and
// whether an editor with the schema marks it too.
func TestRefused(t *testing.T) {
	schema := compileSchema(t)
	for _, tt := range []struct {
		name, text string
		editor     bool
		want       []string
	}{
		{"unknown key", base + "chanels: {}\n", true, []string{`f:6:1: chanels: unknown key "chanels": did you mean "channels"?`}},
		{"unknown key, nothing near", base + "listen: {smtp: x}\n", true, []string{`f:6:10: listen.smtp: unknown key "smtp": want one of console, control, metrics, websocket`}},
		{"key twice", base + group + "domains: {}\n", true, []string{`f:8:1: domains: "domains" stands here twice, first in line 7: leave one`}},
		{"site twice", base + group + "sites:\n  s: {domain: d, region: r, zone: UTC, targets: {a: /t}}\n  s: {}\n", true, []string{`f:10:3: sites.s: "s" stands here twice, first in line 9: leave one`}},
		{"no domain", base + group + "sites: {s: {region: r, zone: UTC, targets: {a: /t}}}", true, []string{`f:8:9: sites.s: domain: it is in no domain: want one of d`}},
		{"unknown domain", base + "regions: {r: {}}\ndomains: {apac: {}}\nsites: {s: {domain: apca, region: r, zone: UTC, targets: {a: /t}}}", false, []string{`f:8:21: sites.s.domain: no domain is named "apca": did you mean "apac"?`}},
		{"no region", base + "domains: {d: {}}\nsites: {s: {domain: d, zone: UTC, targets: {a: /t}}}", true, []string{`f:7:9: sites.s: region: it is in no region: there is none yet`}},
		{"unknown channel", site("targets: {a: /t, c: /u}"), false, []string{`f:8:63: sites.s.targets.c: no channel is named "c": want one of a, b`}},
		{"no channel", site("rate: 1MB"), false, []string{`f:8:9: sites.s: targets: it holds no channel: give it, its domain or its region a target for one`}},
		{"overlapping targets", site(`targets: {a: 'D:\x', b: 'd:/X/y'}`), false, []string{`f:8:70: sites.s.targets.b: folder "d:/X/y" overlaps "D:\\x" of channel "a": two releases would delete each other's files`}},
		{"overlapping defaults", base + group + "defaults: {targets: {a: /t, b: '/t/{site}'}}\nsites:\n  s1: {domain: d, region: r, zone: UTC}\n  s2: {domain: d, region: r, zone: UTC}\n  s3: {domain: d, region: r, zone: UTC}\n", false,
			[]string{`f:8:32: defaults.targets.b: at site "s1": folder "/t/s1" overlaps "/t" of channel "a": two releases would delete each other's files (and at 2 more)`}},
		{"target in a source", site("targets: {a: /src/b/x}"), false, []string{`f:8:59: sites.s.targets.a: folder "/src/b/x" overlaps "/src/b", the source of channel "b": a site must not write to a source of the Core`}},
		{"source in a target", site("targets: {a: /src}"), false, []string{`f:8:59: sites.s.targets.a: folder "/src" overlaps "/src/a", the source of channel "a": a site must not write to a source of the Core`}},
		{"target is a volume", site(`targets: {a: 'D:\'}`), false, []string{`f:8:59: sites.s.targets.a: folder "D:\\": it is the root of a volume: name a folder below it`}},
		{"target is a share", site(`targets: {a: {folder: '\\srv\share'}}`), false, []string{`f:8:68: sites.s.targets.a.folder: folder "\\\\srv\\share": it is the root of a volume: name a folder below it`}},
		{"relative target", site(`targets: {a: depot\a}`), true, []string{`f:8:59: sites.s.targets.a: folder "depot\\a": want an absolute path: /srv/x, D:\x or \\server\share\x`}},
		{"bad placeholder", site(`targets: {a: '/t/{sit}'}`), false, []string{`f:8:59: sites.s.targets.a: "/t/{sit}": the placeholders are {site}, {domain}, {region} and {channel}, and there are no other braces`}},
		{"relative source", base[:strings.Index(base, "channels")] + "channels: {a: {source: content/a}}\n", true, []string{`f:5:24: channels.a.source: folder "content/a": want an absolute path: /srv/x, D:\x or \\server\share\x`}},
		{"source holds data", base[:strings.Index(base, "channels")] + "channels: {a: {source: /data/vault}}\n", false, []string{`f:5:24: channels.a.source: "/data/vault" overlaps data ("/data"): the Core would publish its own keys`}},
		{"no such zone", base + group + "sites: {s: {domain: d, region: r, zone: Asia/Tokio, targets: {a: /t}}}", false, []string{`f:8:41: sites.s.zone: "Asia/Tokio": there is no such time zone: want an IANA name such as Europe/Berlin`}},
		{"the Core's own zone", base + group + "sites: {s: {domain: d, region: r, zone: Local, targets: {a: /t}}}", false, []string{`f:8:41: sites.s.zone: "Local": there is no such time zone: want an IANA name such as Europe/Berlin`}},
		{"coordinates", site("targets: {a: /t}, at: [91, -181]"), true, []string{`f:8:68: sites.s.at: latitude 91: want -90 to 90`, `f:8:68: sites.s.at: longitude -181: want -180 to 180`}},
		{"half a coordinate", site("targets: {a: /t}, at: [91]"), true, []string{`f:8:68: sites.s.at: want [latitude, longitude] in degrees, such as [52.52, 13.40]`}},
		{"bad pattern", strings.Replace(base, "source: /src/a", "source: /src/a, exclude: ['[a', 'ok']", 1), false, []string{`f:5:42: channels.a.exclude[0]: pattern "[a": it is not a glob: check that each [ and { is closed`}},
		{"bad rates", site("rate: 20, targets: {a: {folder: /t, rate: 20Mb}}"), true, []string{
			`f:8:52: sites.s.rate: rate "20": no unit: write 20Mbit for bits or 20MB for bytes per second`,
			`f:8:88: sites.s.targets.a.rate: rate "20Mb": "Mb" may mean bits or bytes: write Mbit or MB`}},
		{"bad policy", site("locked: parital, prune: yes, targets: {a: /t}"), true, []string{
			`f:8:54: sites.s.locked: "parital": did you mean "partial"?`, `f:8:70: sites.s.prune: want true or false, found "yes"`}},
		{"bad names", base + "regions: {Europe: {}}\ndomains: {enroll: {}}\n", true, []string{
			`f:6:11: regions.Europe: name "Europe": want 1 to 63 of a-z, 0-9 and -, and no - first`,
			`f:7:11: domains.enroll: name "enroll": nightferry uses it itself: choose another`}},
		{"secret in a URL", strings.NewReplacer("s3://b", "s3://AKIA:hunter2@b", "tls://core", "tls://u:hunter2@core").Replace(base), true, []string{
			`f:2:8: store: open s3://b/p?region=x: credentials do not belong into a store's URL: give s3://BUCKET/PREFIX?region=REGION&endpoint=URL`,
			`f:4:10: public[0]: credentials do not belong into a URL`}},
		{"secret in an unparsable URL", strings.Replace(base, "tls://core", "tls://u:hunter2%zz@core", 1), true, []string{
			`f:4:10: public[0]: credentials do not belong into a URL`}},
		{"folder as a store", strings.Replace(base, "s3://b/p?region=x", "file:///srv/store", 1), true, []string{`f:2:8: store: a folder has no presigned URLs, through which sites fetch: want s3://BUCKET/PREFIX?region=REGION`}},
		{"nothing listens", base + "listen: {control: off, websocket: off}\n", false, []string{`f:6:9: listen: control and websocket are both off: no site could connect`}},
		{"one port twice", base + "listen: {control: ':443', metrics: '443'}\n", true, []string{
			`f:6:9: listen.websocket: port 443 is the one of control: give each its own`, `f:6:36: listen.metrics: "443": want ADDRESS:PORT such as 127.0.0.1:9469, or off`}},
		{"windows", site("windows: 'mon 20:00', targets: {a: {folder: /t, windows: dusk}}"), false, []string{
			`f:8:55: sites.s.windows: window "mon 20:00": column 5, "20:00": want days (mon, mon-fri, holiday) and times (20:00-06:00, all, dark); a time is 00:00 to 23:59, and 24:00 as an end`,
			`f:8:103: sites.s.targets.a.windows: window "dusk": column 1, "dusk": unknown day: use mon, tue, wed, thu, fri, sat, sun, a range such as mon-fri, or holiday`}},
		{"dark without a place", site("windows: dark, targets: {a: /t}"), false, []string{`f:8:9: sites.s: windows of channel a: window dark: the site has no coordinates: give its latitude and longitude, or write times`}},
		{"no rate", site("rate: 0, targets: {a: {folder: /t, rate: 0}}"), false, []string{
			`f:8:52: sites.s.rate: 0: write "else 0" for a site that is to fetch nothing, and nothing for no limit`,
			`f:8:87: sites.s.targets.a.rate: rate "0": want at least 1 byte per second, and leave the limit out for none`,
		}},
		{"timetable", site("rate: 06:00-20:00 20, targets: {a: /t}"), false, []string{`f:8:52: sites.s.rate: rate timetable "06:00-20:00 20": column 13, "20": no rate (a rate, 0 or unlimited ends each entry): rate "20": no unit: write 20Mbit for bits or 20MB for bytes per second`}},
		{"priority", strings.Replace(base, "source: /src/a", "source: /src/a, priority: 2000", 1), true, []string{"f:5:42: channels.a.priority: 2000: want -1000 to 1000"}},
		{"cadence", strings.Replace(base, "source: /src/a", "source: /src/a, cadence: nightly", 1), false, []string{`f:5:41: channels.a.cadence: cadence "nightly": column 1, "nightly": want minute, hour, day of month, month, day of week and a zone (30 18 * * mon-fri Europe/Berlin), or daily or weekly DAY, a time or nothing, and before first window (daily 2h before first window)`}},
		{"prices", base + "prices: {gb: -1, currency: dollars}\n", true, []string{"f:6:14: prices.gb: -1: want no negative price", `f:6:28: prices.currency: "dollars": want its three capital letters, such as EUR`}},
		{"retention", base + "retention: {logs: 12h, runs: 1h}\n", false, []string{
			`f:6:19: retention.logs: 12h0m0s: want at least a day`, `f:6:30: retention.runs: 1h0m0s: want at least as long as logs are kept, 12h0m0s`}},
		{"what is missing", "version: 1\n", true, []string{
			`f:1:1: data: it is missing: name the folder for the Core's ledger, vault and keys`,
			`f:1:1: store: it is missing: want s3://BUCKET/PREFIX?region=REGION`,
			`f:1:1: public: it is missing: name the URLs at which sites reach this Core, such as [tls://core.example.com:4222, wss://core.example.com:443]`}},
		{"newer version", "version: 2\nflux: {}\n", true, []string{`f:1:10: version: 2: this nightferry reads version 1: upgrade it, or use the configuration that came with it`}},
		{"alias", base + "sites: {s: {domain: *d}}\n", true, []string{`f:6:21: sites.s.domain: anchors, aliases, merge keys and tags are not supported: put shared settings into defaults, a region or a domain, and a text that begins with * & or ! into quotes`}},
		{"not YAML", base + "sites: [\n", true, []string{`f:6:8: not YAML: sequence end token ']' not found`}},
		{"second document", base + "---\nversion: 1\n", true, []string{`f:7:1: a second document begins here: want one`}},
		{"empty", "# nothing\n", true, []string{`f:1:1: it is empty: want version: 1 and what follows from it`}},
		{"deep", strings.Repeat("[", 1000), true, []string{`f:1:1: brackets are nested more than 100 deep`}},
		{"not UTF-8", "version: 1 # \xff", true, []string{`f:1:1: it is not UTF-8: save it in that encoding`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Parse("f", []byte(tt.text))
			var all Errors
			if !errors.As(err, &all) || c != nil {
				t.Fatalf("it was accepted: %v, %v", c, err)
			}
			got := strings.Split(all.Error(), "\n")
			for _, want := range tt.want {
				if !slices.Contains(got, want) {
					t.Errorf("no error says\n%s\nbut there are\n%s", want, all)
				}
			}
			if len(got) != len(tt.want) && tt.name != "alias" {
				t.Errorf("%d errors, want %d:\n%s", len(got), len(tt.want), all)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Error("a password got into an error")
			}
			if tt.editor && tt.name != "second document" && tt.name != "empty" && tt.name != "deep" && tt.name != "not UTF-8" {
				if validate(t, schema, []byte(tt.text)) == nil {
					t.Error("the schema accepts it")
				}
			}
		})
	}
}

// TestLineEnds reads a file as written by a Windows editor.
func TestLineEnds(t *testing.T) {
	text := site("targets: {a: /t}, at: [91, 0]")
	for _, mangle := range []string{text, strings.ReplaceAll(text, "\n", "\r\n"), "\ufeff" + text} {
		_, err := Parse("f", []byte(mangle))
		if want := "f:8:68: sites.s.at: latitude 91: want -90 to 90"; fmt.Sprint(err) != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestLoad(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "none.yaml")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there says %v", err)
	}
	big := filepath.Join(t.TempDir(), "big.yaml")
	if err := os.WriteFile(big, make([]byte, maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(big); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("a file that is too large says %v", err)
	}
	own := base + "nats: {urls: ['tls://nats1:4222', 'wss://nats2'], credentials_file: /etc/core.creds, ca_file: /etc/nats-ca.pem}\n"
	c, err := Parse("f", []byte(strings.Replace(own, "public: [tls://core:4222]\n", "", 1)))
	if err != nil {
		t.Fatal(err)
	}
	urls := []string{"tls://nats1:4222", "wss://nats2:443"}
	if diff := cmp.Diff(&Config{Store: "s3://b/p?region=x", Data: "/data", LogFolder: "/data/logs", MasterKeyFile: "/data/master.key", Public: urls,
		Listen: Listen{Metrics: "127.0.0.1:9469"}, Bus: &Bus{URLs: urls, CredentialsFile: "/etc/core.creds", CAFile: "/etc/nats-ca.pem"},
		Retention: Retention{Logs: 30 * 24 * time.Hour, Runs: 400 * 24 * time.Hour}, Prices: Prices{Currency: "USD"}}, c, cmpopts.IgnoreFields(Config{}, "Fleet")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// FuzzParse checks that any input gives either a valid fleet or errors with
// positions, and never a panic.
func FuzzParse(f *testing.F) {
	seventy, err := os.ReadFile("../../docs/examples/seventy.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seventy)
	f.Add(Default(Starter{Dir: `C:\x`}))
	f.Add([]byte(site("targets: {a: {folder: '/t/{site}', rate: 5Mbit, locked: partial, prune: true}}, at: [1, -2.5]")))
	f.Add([]byte(base + "nats: {urls: ['tls://n:1'], credentials_file: '\\\\s\\h\\c'}\nlisten:\n  metrics: off\nretention: {logs: 2w, runs: 90d}\n"))
	f.Add([]byte("version: 1\n? [a]\n: &x !!str <<: *x\n- |\n  x\n'': .nan\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("f", data)
		if err == nil {
			if p := c.Fleet.Validate(); len(p) > 0 {
				t.Errorf("an invalid fleet was accepted: %v", p[0])
			}
			return
		}
		var all Errors
		if !errors.As(err, &all) || len(all) == 0 {
			t.Fatalf("no Errors: %v", err)
		}
		for _, e := range all {
			if e.Line < 1 || e.Column < 1 || e.Why == "" {
				t.Errorf("an error without a place: %+v", e)
			}
		}
	})
}

// TestNights pins which level's window and timetable take effect, and which
// channels are published automatically.
func TestNights(t *testing.T) {
	c, err := Parse("x", []byte(strings.Replace(base, "b: {source: /src/b}", "b: {source: /src/b, windows: 'sat-sun all', cadence: '30 18 * * mon-fri Europe/Berlin', priority: 5}, image: {source: /src/i}, bare: {source: /src/z}", 1)+`
defaults: {rate: '06:00-20:00 0; else 20Mbit', targets: {a: /a, b: /b, image: /i, bare: /z}}
regions: {r: {windows: 'mon-fri 20:00-06:00', rate: 3MB}, s: {}}
domains: {d: {targets: {image: {windows: dark}, bare: {windows: always}}}}
sites:
  one: {domain: d, region: r, zone: Asia/Tokyo, at: [34.69, 135.50]}
  two: {domain: d, region: s, zone: UTC, windows: always, targets: {image: {windows: 'all'}}}
`))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, s := range c.Fleet.Sites {
		got[s.Name] = fmt.Sprintf("%d %s", s.Rate, s.Rates)
		for _, p := range s.Placements {
			got[s.Name+"/"+p.Channel] = p.Windows
		}
	}
	for _, ch := range c.Fleet.Channels {
		got[ch.Name] = fmt.Sprintf("%d %s", c.Fleet.Site("one").Placement(ch.Name).Priority, ch.Cadence)
	}
	night := "mon-fri 20:00-06:00"
	want := map[string]string{
		"one": "3000000 ", "one/a": night, "one/b": night, "one/bare": "", "one/image": "dark",
		"two": "0 06:00-20:00 0; else 20Mbit", "two/a": "", "two/b": "", "two/bare": "", "two/image": "all",
		"a": "0 daily 2h before first window", "b": "5 30 18 * * mon-fri Europe/Berlin", "image": "0 weekly sun 2h before first window", "bare": "0 ",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
