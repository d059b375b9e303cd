package config

import (
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/fleet"
)

// Defaults, as documented in docs/config.md.
const (
	defaultControl   = "0.0.0.0:4222"
	defaultWebSocket = "0.0.0.0:443"
	defaultMetrics   = "127.0.0.1:9469"
	defaultLogs      = 30 * 24 * time.Hour
	defaultRuns      = 400 * 24 * time.Hour

	off = "off"
)

// builder builds a Config from a file. After an error it continues with a
// valid value, so that one mistake gives one error.
type builder struct {
	*decoder
	f *file

	refused    map[string]bool // keys whose value had the wrong type
	badTargets map[string]bool // keys of targets that were refused at their own level
}

// where returns the position of a key's value, or of its nearest parent's.
func (b *builder) where(key string) position {
	for key != "" {
		if p, ok := b.at[key]; ok {
			return p
		}
		i := strings.LastIndexAny(key, ".[")
		if i < 0 {
			break
		}
		key = key[:i]
	}
	return position{1, 1}
}

// bad reports a value, unless the decoder has already done so.
func (b *builder) bad(key, format string, args ...any) {
	if !b.refused[key] {
		b.fail(b.where(key), key, format, args...)
	}
}

func (b *builder) build() *Config {
	f := b.f
	c := &Config{
		Data:   b.folder("data", f.Data, ""),
		Listen: b.listen(),
		Bus:    b.bus(),
	}
	c.Store = b.store()
	c.LogFolder = b.folder("log_folder", f.LogFolder, below(c.Data, "logs"))
	c.MasterKeyFile = b.folder("master_key_file", f.MasterKeyFile, below(c.Data, "master.key"))
	c.Public = b.urls("public", f.Public)
	switch {
	case b.has("public") && len(f.Public) > 0:
	case c.Bus != nil:
		c.Public = c.Bus.URLs
	default:
		b.bad("public", "it is missing: name the URLs at which sites reach this Core, such as [tls://core.example.com:4222, wss://core.example.com:443]")
	}
	c.Retention, c.Prices = b.retention(), b.prices()
	c.Fleet = b.fleet()
	c.Alerts = b.alerts(c.Fleet)
	for _, ch := range c.Fleet.Channels {
		if c.Data != "" && fleet.Overlap(ch.Source, c.Data) {
			b.bad("channels."+ch.Name+".source", "%s overlaps data (%s): the Core would publish its own keys", quote(ch.Source), quote(c.Data))
		}
	}
	return c
}

func (b *builder) has(key string) bool { _, ok := b.at[key]; return ok }

// below joins dir and name with the separator of dir's operating system.
func below(dir, name string) string {
	if dir == "" {
		return ""
	}
	sep := "/"
	if !strings.HasPrefix(dir, "/") || strings.HasPrefix(dir, "//") {
		sep = `\`
	}
	return strings.TrimRight(dir, `/\`) + sep + name
}

func (b *builder) folder(key string, given *string, def string) string {
	if given == nil {
		if def == "" && key == "data" {
			b.bad(key, "it is missing: name the folder for the Core's ledger, vault and keys")
		}
		return def
	}
	if err := fleet.CheckFolder(*given); err != nil {
		b.bad(key, "%v", err)
		return def
	}
	return *given
}

func (b *builder) store() string {
	switch {
	case b.f.Store == nil:
		b.bad("store", "it is missing: want s3://BUCKET/PREFIX?region=REGION")
	case strings.HasPrefix(*b.f.Store, "file:"):
		b.bad("store", "a folder has no presigned URLs, through which sites fetch: want s3://BUCKET/PREFIX?region=REGION")
	default:
		if err := bucket.CheckS3(*b.f.Store); err != nil {
			b.bad("store", "%v", err)
		}
		return *b.f.Store
	}
	return ""
}

func (b *builder) listen() Listen {
	l := Listen{
		Control:   b.address("listen.control", b.f.Listen.Control, defaultControl),
		WebSocket: b.address("listen.websocket", b.f.Listen.WebSocket, defaultWebSocket),
		Metrics:   b.address("listen.metrics", b.f.Listen.Metrics, defaultMetrics),
	}
	if b.f.NATS != nil {
		for _, key := range []string{"listen.control", "listen.websocket"} {
			if b.has(key) {
				b.bad(key, "it has no use beside nats: the Core runs no server of its own then")
			}
		}
		l.Control, l.WebSocket = "", ""
		return l
	}
	if l.Control == "" && l.WebSocket == "" {
		b.bad("listen", "control and websocket are both off: no site could connect")
	}
	seen := map[string]string{}
	for _, e := range []struct{ key, addr string }{{"control", l.Control}, {"websocket", l.WebSocket}, {"metrics", l.Metrics}} {
		_, port, _ := net.SplitHostPort(e.addr)
		if port == "" || port == "0" {
			continue
		}
		if other := seen[port]; other != "" {
			b.bad("listen."+e.key, "port %s is the one of %s: give each its own", port, other)
		}
		seen[port] = e.key
	}
	return l
}

func (b *builder) address(key string, given *string, def string) string {
	if given == nil {
		return def
	}
	if *given == off {
		return ""
	}
	host, port, err := net.SplitHostPort(*given)
	n, perr := strconv.ParseUint(port, 10, 16)
	if err != nil || perr != nil || strconv.FormatUint(n, 10) != port || strings.ContainsAny(host, "/@ ") {
		b.bad(key, "%s: want ADDRESS:PORT such as %s, or off", quote(*given), def)
		return def
	}
	return *given
}

func (b *builder) bus() *Bus {
	n := b.f.NATS
	if n == nil {
		return nil
	}
	out := &Bus{URLs: b.urls("nats.urls", n.URLs), CredentialsFile: b.folder("nats.credentials_file", n.CredentialsFile, ""), CAFile: b.folder("nats.ca_file", n.CAFile, "")}
	if len(n.URLs) == 0 {
		b.bad("nats.urls", "it is missing: want a list such as [tls://nats1.example.com:4222]")
	}
	if n.CredentialsFile == nil {
		b.bad("nats.credentials_file", "it is missing: name the file with the Core's user on your cluster")
	}
	if n.CAFile == nil {
		b.bad("nats.ca_file", "it is missing: name the certificate of the authority that signs your cluster's servers; sites pin it")
	}
	return out
}

func (b *builder) urls(key string, given []string) []string {
	var out []string
	for i, text := range given {
		u, err := url.Parse(text)
		port := ""
		if err == nil {
			port = map[string]string{"tls": "4222", "wss": "443"}[u.Scheme]
		}
		here := fmt.Sprintf("%s[%d]", key, i)
		switch {
		case err == nil && u.User != nil:
			// Not repeated: it holds a password.
			b.bad(here, "credentials do not belong into a URL")
			continue
		case port == "" || u.Hostname() == "" || u.Path != "" || u.RawQuery != "" || u.Fragment != "":
			b.bad(here, "%s: want tls://HOST:PORT or wss://HOST:PORT", quote(text))
			continue
		}
		if p := u.Port(); p != "" {
			port = p
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			b.bad(here, "%s: want a port from 1 to 65535", quote(text))
			continue
		}
		full := u.Scheme + "://" + net.JoinHostPort(strings.ToLower(u.Hostname()), port)
		if slices.Contains(out, full) {
			b.bad(here, "%s stands here twice: leave one", quote(text))
			continue
		}
		out = append(out, full)
	}
	return out
}

func (b *builder) retention() Retention {
	r := Retention{Logs: defaultLogs, Runs: defaultRuns}
	if v := b.f.Retention.Logs; v != nil {
		r.Logs = time.Duration(*v)
	}
	if v := b.f.Retention.Runs; v != nil {
		r.Runs = time.Duration(*v)
	}
	if r.Logs < 24*time.Hour {
		b.bad("retention.logs", "%s: want at least a day", r.Logs)
	}
	if r.Runs < r.Logs {
		b.bad("retention.runs", "%s: want at least as long as logs are kept, %s", r.Runs, r.Logs)
	}
	return r
}

// names returns a map's keys, sorted.
func names[T any](m map[string]T) []string { return slices.Sorted(maps.Keys(m)) }
