package config

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

type tree = map[string]any

// complete returns a configuration with every section, so that each key can
// be set alone.
func complete() tree {
	return tree{
		"version": 1, "store": "s3://b/p?region=x", "data": "/data", "public": []string{"tls://core:4222"},
		"channels": tree{"NAME": tree{"source": "/src"}}, "regions": tree{"NAME": tree{}, "other": tree{}}, "domains": tree{"NAME": tree{}, "other": tree{}},
		"sites":  tree{"NAME": tree{"domain": "NAME", "region": "NAME", "zone": "UTC", "at": []float64{1, 2}, "targets": tree{"NAME": tree{"folder": "/t"}}}},
		"alerts": tree{"to": []string{"a@example.com"}, "smtp": tree{"server": "mail:25", "from": "b@example.com"}, "webhook": false},
	}
}

// effects maps each key to a value that is not its default, and to the other
// settings that it needs to take effect.
var effects = map[string]struct {
	value any
	with  func(tree)
}{
	"store": {value: "s3://other/p?region=x"}, "data": {value: "/other"}, "log_folder": {value: "/logs"}, "master_key_file": {value: "/key"},
	"public": {value: []string{"tls://other:1"}}, "listen.control": {value: "off"}, "listen.websocket": {value: "off"}, "listen.metrics": {value: "off"},
	"listen.console.address": {value: "127.0.0.1:9"}, "listen.console.url": {value: "https://other", with: withConsole},
	"listen.console.certificate_file": {value: "/other", with: withConsole}, "listen.console.key_file": {value: "/other", with: withConsole},
	"nats.urls": {value: []string{"tls://other:1"}, with: ownBus}, "nats.credentials_file": {value: "/other", with: ownBus}, "nats.ca_file": {value: "/other", with: ownBus},
	"retention.logs": {value: "2d"}, "retention.runs": {value: "90d"}, "prices.gb": {value: 0.5}, "prices.thousand_requests": {value: 0.5}, "prices.currency": {value: "EUR"},
	"signin.issuer": {value: "https://other", with: withSignIn}, "signin.client_id": {value: "other", with: withSignIn}, "signin.ca_file": {value: "/other", with: withSignIn}, "signin.claim": {value: "groups", with: withSignIn},
	"signin.roles.value": {value: "other", with: withSignIn}, "signin.roles.role": {value: "admin", with: withSignIn}, "signin.roles.domain": {value: "NAME", with: withSignIn}, "signin.roles.region": {value: "NAME", with: withSignIn},
	"alerts.to": {value: []string{"c@example.com"}}, "alerts.report": {value: "08:00 UTC"}, "alerts.regions.NAME.to": {value: []string{"c@example.com"}},
	"alerts.regions.NAME.report": {value: "08:00 UTC"}, "alerts.domains.NAME.to": {value: []string{"c@example.com"}},
	"alerts.smtp.server": {value: "other:25"}, "alerts.smtp.tls": {value: "none"}, "alerts.smtp.from": {value: "c@example.com"}, "alerts.smtp.helo": {value: "core.example.com"}, "alerts.smtp.ca_file": {value: "/ca"},
	"alerts.smtp.folder": {value: "/mails", with: mailFolder}, "alerts.webhook": {value: true},
	"channels.NAME.source": {value: "/other"}, "channels.NAME.include": {value: []string{"*.x"}}, "channels.NAME.exclude": {value: []string{"*.x"}},
	"channels.NAME.links": {value: "skip"}, "channels.NAME.ignore_inode": {value: true}, "channels.NAME.source_ignore_inode": {value: true}, "channels.NAME.max_delete": {value: "1%"}, "channels.NAME.max_delete_files": {value: 7}, "channels.NAME.unportable_names": {value: "allow"},
	"channels.NAME.keep": {value: 3}, "channels.NAME.keep_within": {value: "3d"}, "channels.NAME.locked": {value: "partial"}, "channels.NAME.prune": {value: true},
	"channels.NAME.ignore": {value: []string{"*.x"}}, "channels.NAME.log_unchanged": {value: true}, "channels.NAME.windows": {value: "20:00-06:00"},
	"channels.NAME.cadence": {value: "daily before first window"}, "channels.NAME.priority": {value: 3}, "channels.NAME.scrub": {value: "never"},
	"channels.NAME.scrub_rate": {value: "1MB"}, "channels.NAME.repair": {value: false}, "channels.NAME.measure_rate": {value: "1MB"},
	"domains.NAME.log_readers": {value: "readers"}, "sites.NAME.domain": {value: "other"}, "sites.NAME.region": {value: "other"}, "sites.NAME.zone": {value: "Asia/Tokyo"},
	"sites.NAME.at": {value: []float64{3, 4}},
}

// levelEffects are the keys below each level.
var levelEffects = map[string]any{
	"rate": "1MB", "windows": "20:00-06:00", "locked": "partial", "prune": true, "ignore_inode": true, "repair": false,
	"targets.NAME.folder": "/elsewhere", "targets.NAME.rate": "1MB", "targets.NAME.windows": "20:00-06:00", "targets.NAME.locked": "partial",
	"targets.NAME.prune": true, "targets.NAME.ignore_inode": true, "targets.NAME.repair": false,
}

func ownBus(c tree) {
	c["nats"] = tree{"urls": []string{"tls://n:4222"}, "credentials_file": "/c", "ca_file": "/ca"}
}

func withConsole(c tree) {
	section(c, "listen").(tree)["console"] = tree{"address": "0.0.0.0:8443", "url": "https://core:8443", "certificate_file": "/cert", "key_file": "/key"}
}

func withSignIn(c tree) {
	withConsole(c)
	c["signin"] = tree{"issuer": "https://idp", "client_id": "id", "roles": []tree{{"value": "v", "role": "viewer"}}}
}

func mailFolder(c tree) {
	smtp := section(c, "alerts.smtp").(tree)
	delete(smtp, "server")
	smtp["folder"] = "/other"
}

func section(c tree, key string) any {
	var v any = c
	for part := range strings.SplitSeq(key, ".") {
		if list, ok := v.([]tree); ok {
			v = list[0]
		}
		m := v.(tree)
		if m[part] == nil {
			m[part] = tree{}
		}
		v = m[part]
	}
	return v
}

func parsed(t *testing.T, c tree) *Config {
	t.Helper()
	// Names are lower case.
	b, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	conf, err := Parse("f", []byte(strings.ReplaceAll(string(b), "NAME", "name")))
	if err != nil {
		t.Fatalf("%v in\n%s", err, b)
	}
	return conf
}

// TestEveryKeyCounts checks that setting any key to a value other than its
// default changes the configuration. archtest then requires a reader for each
// field.
func TestEveryKeyCounts(t *testing.T) {
	keys := goKeys(reflect.TypeFor[file](), "")
	slices.Sort(keys)
	for i, key := range keys {
		if i+1 < len(keys) && strings.HasPrefix(keys[i+1], key+".") || key == "version" {
			continue // a section
		}
		e, ok := effects[key]
		if !ok {
			for _, level := range []string{"sites.NAME.", "domains.NAME.", "regions.NAME.", "defaults."} {
				if rest, found := strings.CutPrefix(key, level); found && !ok {
					e.value, ok = levelEffects[rest]
					e.with = func(c tree) { // remove it from narrower levels
						if level != "sites.NAME." && rest == "targets.NAME.folder" {
							delete(section(c, "sites.NAME").(tree), "targets")
							section(c, "defaults.targets").(tree)["NAME"] = tree{"folder": "/t"}
						}
					}
				}
			}
		}
		if !ok {
			t.Errorf("%s: no value is known that would change anything", key)
			continue
		}
		before, after := complete(), complete()
		if e.with != nil {
			e.with(before)
			e.with(after)
		}
		parent, leaf := "", key
		if j := strings.LastIndexByte(key, '.'); j >= 0 {
			parent, leaf = key[:j], key[j+1:]
		}
		in := after
		if parent != "" {
			if list, ok := section(after, parent).([]tree); ok {
				in = list[0]
			} else {
				in = section(after, parent).(tree)
			}
		}
		in[leaf] = e.value
		if reflect.DeepEqual(parsed(t, before), parsed(t, after)) {
			t.Errorf("%s: %v changes nothing", key, e.value)
		}
	}
}
