package bus

import (
	"net"
	"strings"
	"testing"

	"nightferry/internal/proxytest"
)

func TestThroughRealProxies(t *testing.T) {
	w := newWorld(t)
	w.secret("open-sesame")
	w.secret("wrong-word")
	port := func(addr string) string { _, p, _ := net.SplitHostPort(addr); return p }
	urls := []string{"tls://" + coreHost + ":" + port(w.server.Addr()), "wss://" + coreHost + ":" + port(w.server.WebSocketAddr())}
	http := proxytest.Tinyproxy(t, "ferry", "open-sesame", coreHost)
	socks := proxytest.Microsocks(t, "ferry", "open-sesame", coreHost)
	for _, p := range []struct {
		variable, scheme string
		*proxytest.Proxy
		ask     string // request in which the proxy receives the name
		refused string // text in the error for a wrong password
	}{
		{"HTTPS_PROXY", "http", http, "CONNECT " + coreHost + ":", "wants a login"},
		{"https_proxy", "http", http, "CONNECT " + coreHost + ":", "wants a login"},
		{"ALL_PROXY", "socks5", socks, "\x05\x01\x00\x03\x14" + coreHost, "authentication"},
		{"all_proxy", "socks5h", socks, "\x05\x01\x00\x03\x14" + coreHost, "authentication"},
	} {
		for _, u := range urls {
			t.Run(p.variable+" "+u[:3], func(t *testing.T) {
				before := strings.Count(p.Asked(), p.ask)
				o, _ := w.siteOptions("alpha", "rome")
				o.URLs = []string{u}
				o.Env = func(name string) string {
					return map[string]string{p.variable: p.scheme + "://ferry:open-sesame@" + p.Addr}[name]
				}
				s := w.dial(o)
				heard, up := s.hear("nf.down.alpha.rome.>"), w.core.hear("nf.up.alpha.rome.>")
				big := strings.Repeat("x", 200_000)
				s.say("nf.up.alpha.rome.report", big)
				w.core.say("nf.down.alpha.rome.state", big)
				if got := receive(t, "up", up); got != "nf.up.alpha.rome.report "+big {
					t.Errorf("%d bytes came up", len(got))
				}
				if got := receive(t, "down", heard); got != "nf.down.alpha.rome.state "+big {
					t.Errorf("%d bytes came down", len(got))
				}
				if strings.Count(p.Asked(), p.ask) != before+1 {
					t.Errorf("the proxy was not asked for the name: %.100q", p.Asked())
				}

				s.Close()
				o.Env = func(name string) string {
					return map[string]string{p.variable: p.scheme + "://ferry:wrong-word@" + p.Addr}[name]
				}
				if _, err := w.try(o); err == nil || !strings.Contains(err.Error(), p.refused) {
					t.Errorf("with a wrong password: %v", err)
				}
				asked := strings.Count(p.Asked(), p.ask)
				o.Env = func(name string) string {
					return map[string]string{p.variable: p.scheme + "://" + p.Addr, "NO_PROXY": ".nightferry.test"}[name]
				}
				if _, err := w.try(o); err == nil || strings.Count(p.Asked(), p.ask) != asked {
					t.Errorf("NO_PROXY is not obeyed: %v", err)
				}
			})
		}
	}
}
