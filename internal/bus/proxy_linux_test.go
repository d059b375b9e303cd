package bus

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// proxied starts a real proxy, to which alone coreHost is a name, behind a relay that records what is asked of it.
// Command gets the port to listen on.
func proxied(t *testing.T, command func(port string) []string) (addr string, asked func() string) {
	t.Helper()
	hosts := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(hosts, []byte("127.0.0.1 "+coreHost+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := free.Addr().String()
	free.Close()
	_, port, _ := net.SplitHostPort(at)
	args := command(port)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "LD_PRELOAD=libnss_wrapper.so", "NSS_WRAPPER_HOSTS="+hosts)
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: install tinyproxy-bin, microsocks and libnss-wrapper", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	limit, again := time.After(patience), time.NewTicker(10*time.Millisecond)
	defer again.Stop()
	for {
		conn, err := net.Dial("tcp", at)
		if err == nil {
			conn.Close()
			break
		}
		select {
		case <-again.C:
		case <-limit:
			t.Fatalf("%s does not listen: %v", args[0], err)
		}
	}
	return relay(t, at)
}

// relay hands on connections, and records what clients say.
func relay(t *testing.T, to string) (addr string, asked func() string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var said strings.Builder
	var running sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		running.Wait()
	})
	running.Go(func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			onward, err := net.Dial("tcp", to)
			if err != nil {
				from.Close()
				continue
			}
			running.Go(func() {
				_, _ = io.Copy(from, onward) // until one side ends
				from.Close()
			})
			running.Go(func() {
				record := writerFunc(func(b []byte) (int, error) {
					mu.Lock()
					defer mu.Unlock()
					return said.Write(b)
				})
				_, _ = io.Copy(io.MultiWriter(record, onward), from)
				onward.Close()
			})
		}
	})
	return l.Addr().String(), func() string {
		mu.Lock()
		defer mu.Unlock()
		return said.String()
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func tinyproxy(t *testing.T) func(string) []string {
	return func(port string) []string {
		conf := filepath.Join(t.TempDir(), "tinyproxy.conf")
		text := fmt.Sprintf("Port %s\nListen 127.0.0.1\nTimeout 60\nBasicAuth ferry open-sesame\nLogLevel Critical\n", port)
		if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return []string{"tinyproxy", "-d", "-c", conf}
	}
}

func microsocks(port string) []string {
	return []string{"microsocks", "-i", "127.0.0.1", "-p", port, "-u", "ferry", "-P", "open-sesame"}
}

func TestThroughRealProxies(t *testing.T) {
	w := newWorld(t)
	w.secret("open-sesame")
	w.secret("wrong-word")
	port := func(addr string) string { _, p, _ := net.SplitHostPort(addr); return p }
	urls := []string{"tls://" + coreHost + ":" + port(w.server.Addr()), "wss://" + coreHost + ":" + port(w.server.WebSocketAddr())}
	if _, err := net.LookupHost(coreHost); err == nil {
		t.Fatalf("%s is a name here: then this proves nothing", coreHost)
	}
	http, httpAsked := proxied(t, tinyproxy(t))
	socks, socksAsked := proxied(t, microsocks)
	for _, p := range []struct {
		variable, scheme, addr string
		asked                  func() string
		ask                    string // how the name is asked for
		refused                string // what a wrong password is answered
	}{
		{"HTTPS_PROXY", "http", http, httpAsked, "CONNECT " + coreHost + ":", "wants a login"},
		{"https_proxy", "http", http, httpAsked, "CONNECT " + coreHost + ":", "wants a login"},
		{"ALL_PROXY", "socks5", socks, socksAsked, "\x05\x01\x00\x03\x14" + coreHost, "authentication"},
		{"all_proxy", "socks5h", socks, socksAsked, "\x05\x01\x00\x03\x14" + coreHost, "authentication"},
	} {
		for _, u := range urls {
			t.Run(p.variable+" "+u[:3], func(t *testing.T) {
				before := strings.Count(p.asked(), p.ask)
				o, _ := w.siteOptions("alpha", "rome")
				o.URLs = []string{u}
				o.Env = func(name string) string {
					return map[string]string{p.variable: p.scheme + "://ferry:open-sesame@" + p.addr}[name]
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
				if strings.Count(p.asked(), p.ask) != before+1 {
					t.Errorf("the proxy was not asked for the name: %.100q", p.asked())
				}

				s.Close()
				o.Env = func(name string) string {
					return map[string]string{p.variable: p.scheme + "://ferry:wrong-word@" + p.addr}[name]
				}
				if _, err := w.try(o); err == nil || !strings.Contains(err.Error(), p.refused) {
					t.Errorf("with a wrong password: %v", err)
				}
				asked := strings.Count(p.asked(), p.ask)
				o.Env = func(name string) string {
					return map[string]string{p.variable: p.scheme + "://" + p.addr, "NO_PROXY": ".nightferry.test"}[name]
				}
				if _, err := w.try(o); err == nil || strings.Count(p.asked(), p.ask) != asked {
					t.Errorf("NO_PROXY is not obeyed: %v", err)
				}
			})
		}
	}
}
