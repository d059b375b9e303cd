package config

import (
	"net"
	"net/url"
	"strings"
)

// defaultConsole is an example: the console is off by default.
const defaultConsole = "0.0.0.0:8443"

func (b *builder) buildConsole() (c Console) {
	f := b.f.Listen.Console
	if f == nil {
		return c
	}
	const key = "listen.console"
	if f.Address == nil {
		b.reportBad(key+".address", "it is missing: want ADDRESS:PORT such as %s, or off", defaultConsole)
		return c
	}
	at := key + ".address"
	if !b.hasKey(at) {
		at = key // the short form
	}
	if c.Address = b.checkAddress(at, f.Address, defaultConsole); c.Address == "" {
		return Console{}
	}
	c.CertificateFile, c.KeyFile = b.buildFolder(key+".certificate_file", f.CertificateFile, ""), b.buildFolder(key+".key_file", f.KeyFile, "")
	switch {
	case f.CertificateFile == nil && f.KeyFile != nil:
		b.reportBad(key+".key_file", "it has no use without certificate_file: give both, or none")
	case f.CertificateFile != nil && f.KeyFile == nil:
		b.reportBad(key+".certificate_file", "it has no use without key_file: give both, or none")
	}
	if f.URL == nil {
		return c
	}
	u, err := url.Parse(*f.URL)
	switch {
	case strings.Contains(*f.URL, "@"):
		b.reportBad(key+".url", "credentials do not belong into a URL") // not repeated: it holds a password
	case err != nil || u.Scheme != "https" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		b.reportBad(key+".url", "%s: want https://HOST or https://HOST:PORT", quoteShort(*f.URL))
	default:
		c.URL = "https://" + strings.ToLower(u.Host)
	}
	return c
}

// consoleURL returns the URL of the console: the configured one, or the first public host with the port of the console's
// address.
func (b *builder) consoleURL(c *Config) string {
	l := &c.Listen.Console
	if l.Address == "" || l.URL != "" {
		return l.URL
	}
	if c.Bus != nil {
		b.reportBad("listen.console.url", "it is missing: beside nats, name the address of the Core, such as https://core.example.com:8443")
	}
	host := "localhost"
	if len(c.Public) > 0 {
		if u, err := url.Parse(c.Public[0]); err == nil {
			host = u.Hostname()
		}
	}
	_, port, _ := net.SplitHostPort(l.Address)
	if port == "443" {
		return "https://" + hostOnly(host)
	}
	return "https://" + net.JoinHostPort(host, port)
}

// hostOnly returns a host as a URL has it without a port.
func hostOnly(host string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}
