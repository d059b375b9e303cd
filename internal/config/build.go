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

// keyPosition returns the position of a key's value, or of its nearest parent's.
func (b *builder) keyPosition(key string) position {
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

// reportBad reports a value, unless the decoder has already done so.
func (b *builder) reportBad(key, format string, args ...any) {
	if !b.refused[key] {
		b.addError(b.keyPosition(key), key, format, args...)
	}
}

func (b *builder) buildConfig() *Config {
	f := b.f
	c := &Config{
		Data:   b.buildFolder("data", f.Data, ""),
		Listen: b.buildListen(),
		Bus:    b.buildBus(),
	}
	c.Store = b.buildStore()
	c.LogFolder = b.buildFolder("log_folder", f.LogFolder, joinPath(c.Data, "logs"))
	c.MasterKeyFile = b.buildFolder("master_key_file", f.MasterKeyFile, joinPath(c.Data, "master.key"))
	c.Public = b.checkURLs("public", f.Public)
	switch {
	case b.hasKey("public") && len(f.Public) > 0:
	case c.Bus != nil:
		c.Public = c.Bus.URLs
	default:
		b.reportBad("public", "it is missing: name the URLs at which sites reach this Core, such as [tls://core.example.com:4222, wss://core.example.com:443]")
	}
	c.Listen.Console.URL = b.consoleURL(c)
	c.Retention, c.Prices = b.buildRetention(), b.buildPrices()
	c.Fleet = b.buildFleet()
	c.Alerts = b.buildAlerts(c.Fleet)
	c.SignIn = b.buildSignIn(c)
	for _, ch := range c.Fleet.Channels {
		if c.Data != "" && fleet.Overlap(ch.Source, c.Data) {
			b.reportBad("channels."+ch.Name+".source", "%s overlaps data (%s): the Core would publish its own keys", quoteShort(ch.Source), quoteShort(c.Data))
		}
	}
	return c
}

func (b *builder) hasKey(key string) bool { _, ok := b.at[key]; return ok }

// joinPath joins dir and name with the separator of dir's operating system.
func joinPath(dir, name string) string {
	if dir == "" {
		return ""
	}
	sep := "/"
	if !strings.HasPrefix(dir, "/") || strings.HasPrefix(dir, "//") {
		sep = `\`
	}
	return strings.TrimRight(dir, `/\`) + sep + name
}

func (b *builder) buildFolder(key string, given *string, def string) string {
	if given == nil {
		if def == "" && key == "data" {
			b.reportBad(key, "it is missing: name the folder for the Core's ledger, vault and keys")
		}
		return def
	}
	if err := fleet.CheckFolder(*given); err != nil {
		b.reportBad(key, "%v", err)
		return def
	}
	return *given
}

func (b *builder) buildStore() string {
	switch {
	case b.f.Store == nil:
		b.reportBad("store", "it is missing: want s3://BUCKET/PREFIX?region=REGION")
	case strings.HasPrefix(*b.f.Store, "file:"):
		b.reportBad("store", "a folder has no presigned URLs, through which sites fetch: want s3://BUCKET/PREFIX?region=REGION")
	default:
		if err := bucket.CheckS3(*b.f.Store); err != nil {
			b.reportBad("store", "%v", err)
		}
		return *b.f.Store
	}
	return ""
}

func (b *builder) buildListen() Listen {
	l := Listen{
		Control:   b.checkAddress("listen.control", b.f.Listen.Control, defaultControl),
		WebSocket: b.checkAddress("listen.websocket", b.f.Listen.WebSocket, defaultWebSocket),
		Metrics:   b.checkAddress("listen.metrics", b.f.Listen.Metrics, defaultMetrics),
	}
	l.Console = b.buildConsole()
	if b.f.NATS != nil {
		for _, key := range []string{"listen.control", "listen.websocket"} {
			if b.hasKey(key) {
				b.reportBad(key, "it has no use beside nats: the Core runs no server of its own then")
			}
		}
		l.Control, l.WebSocket = "", ""
	} else if l.Control == "" && l.WebSocket == "" {
		b.reportBad("listen", "control and websocket are both off: no site could connect")
	}
	seen := map[string]string{}
	for _, e := range []struct{ key, addr string }{{"control", l.Control}, {"websocket", l.WebSocket}, {"metrics", l.Metrics}, {"console", l.Console.Address}} {
		_, port, _ := net.SplitHostPort(e.addr)
		if port == "" || port == "0" {
			continue
		}
		if other := seen[port]; other != "" {
			b.reportBad("listen."+e.key, "port %s is the one of %s: give each its own", port, other)
		}
		seen[port] = e.key
	}
	return l
}

func (b *builder) checkAddress(key string, given *string, def string) string {
	if given == nil {
		return def
	}
	if *given == off {
		return ""
	}
	host, port, err := net.SplitHostPort(*given)
	n, perr := strconv.ParseUint(port, 10, 16)
	if err != nil || perr != nil || strconv.FormatUint(n, 10) != port || strings.ContainsAny(host, "/@ ") {
		b.reportBad(key, "%s: want ADDRESS:PORT such as %s, or off", quoteShort(*given), def)
		return def
	}
	return *given
}

func (b *builder) buildBus() *Bus {
	n := b.f.NATS
	if n == nil {
		return nil
	}
	out := &Bus{URLs: b.checkURLs("nats.urls", n.URLs), CredentialsFile: b.buildFolder("nats.credentials_file", n.CredentialsFile, ""), CAFile: b.buildFolder("nats.ca_file", n.CAFile, "")}
	if len(n.URLs) == 0 {
		b.reportBad("nats.urls", "it is missing: want a list such as [tls://nats1.example.com:4222]")
	}
	if n.CredentialsFile == nil {
		b.reportBad("nats.credentials_file", "it is missing: name the file with the Core's user on your cluster")
	}
	if n.CAFile == nil {
		b.reportBad("nats.ca_file", "it is missing: name the certificate of the authority that signs your cluster's servers; sites pin it")
	}
	return out
}

func (b *builder) checkURLs(key string, given []string) []string {
	var out []string
	for i, text := range given {
		u, err := url.Parse(text)
		port := ""
		if err == nil {
			port = map[string]string{"tls": "4222", "wss": "443"}[u.Scheme]
		}
		here := fmt.Sprintf("%s[%d]", key, i)
		switch {
		case strings.Contains(text, "@"):
			// Not repeated: it holds a password.
			b.reportBad(here, "credentials do not belong into a URL")
			continue
		case port == "" || u.Hostname() == "" || u.Path != "" || u.RawQuery != "" || u.Fragment != "":
			b.reportBad(here, "%s: want tls://HOST:PORT or wss://HOST:PORT", quoteShort(text))
			continue
		}
		if p := u.Port(); p != "" {
			port = p
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			b.reportBad(here, "%s: want a port from 1 to 65535", quoteShort(text))
			continue
		}
		full := u.Scheme + "://" + net.JoinHostPort(strings.ToLower(u.Hostname()), port)
		if slices.Contains(out, full) {
			b.reportBad(here, "%s stands here twice: leave one", quoteShort(text))
			continue
		}
		out = append(out, full)
	}
	return out
}

func (b *builder) buildRetention() Retention {
	r := Retention{Logs: defaultLogs, Runs: defaultRuns}
	if v := b.f.Retention.Logs; v != nil {
		r.Logs = time.Duration(*v)
	}
	if v := b.f.Retention.Runs; v != nil {
		r.Runs = time.Duration(*v)
	}
	if r.Logs < 24*time.Hour {
		b.reportBad("retention.logs", "%s: want at least a day", r.Logs)
	}
	if r.Runs < r.Logs {
		b.reportBad("retention.runs", "%s: want at least as long as logs are kept, %s", r.Runs, r.Logs)
	}
	return r
}

// sortedKeys returns a map's keys, sorted.
func sortedKeys[T any](m map[string]T) []string { return slices.Sorted(maps.Keys(m)) }
