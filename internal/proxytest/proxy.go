// Package proxytest starts real HTTP and SOCKS5 proxies that require a login, and records their traffic.
package proxytest

import (
	"errors"
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

	"nightferry/internal/testbed"
)

// Proxy is a real proxy in its own process, behind a relay that records the bytes from clients. It requires a login.
// Only the proxy can resolve certain names, so a client that reaches them has left the resolution to the proxy.
type Proxy struct {
	Addr string // host:port
	mu   sync.Mutex
	said strings.Builder
}

// Asked returns all bytes that clients have sent to the proxy so far, including tunnelled ones.
func (p *Proxy) Asked() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.String()
}

// Write implements io.Writer for the relay.
func (p *Proxy) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.Write(b)
}

// Tinyproxy starts a proxy for HTTP CONNECT.
func Tinyproxy(t testing.TB, user, password string, names ...string) *Proxy {
	t.Helper()
	conf := filepath.Join(t.TempDir(), "tinyproxy.conf")
	return startProxy(t, names, func(port string) ([]string, error) {
		text := fmt.Sprintf("Port %s\nListen 127.0.0.1\nTimeout 60\nMaxClients 200\nBasicAuth %s %s\nLogLevel Critical\n", port, user, password)
		return []string{"tinyproxy", "-d", "-c", conf}, os.WriteFile(conf, []byte(text), 0o644)
	})
}

// Microsocks starts a proxy for SOCKS5.
func Microsocks(t testing.TB, user, password string, names ...string) *Proxy {
	t.Helper()
	return startProxy(t, names, func(port string) ([]string, error) {
		return []string{"microsocks", "-i", "127.0.0.1", "-p", port, "-u", user, "-P", password}, nil
	})
}

func startProxy(t testing.TB, names []string, command func(port string) ([]string, error)) *Proxy {
	t.Helper()
	hosts := filepath.Join(t.TempDir(), "hosts")
	var text strings.Builder
	for _, n := range names {
		if _, err := net.LookupHost(n); err == nil {
			t.Fatalf("%s is a name here: then its use through a proxy proves nothing", n)
		}
		fmt.Fprintf(&text, "127.0.0.1 %s\n", n)
	}
	at, err := testbed.FreeAddr()
	if err = errors.Join(err, os.WriteFile(hosts, []byte(text.String()), 0o644)); err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(at)
	args, err := command(port)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "LD_PRELOAD=libnss_wrapper.so", "NSS_WRAPPER_HOSTS="+hosts)
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: install tinyproxy-bin, microsocks and libnss-wrapper, as scripts/test does", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	limit, again := time.After(30*time.Second), time.NewTicker(10*time.Millisecond)
	defer again.Stop()
	for {
		conn, err := net.Dial("tcp", at)
		if err == nil {
			conn.Close()
			p := &Proxy{}
			p.Addr = relay(t, at, p)
			return p
		}
		select {
		case <-again.C:
		case <-limit:
			t.Fatalf("%s does not listen: %v", args[0], err)
		}
	}
}

// relay forwards connections, and records the bytes from clients.
func relay(t testing.TB, to string, record io.Writer) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
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
				_, _ = io.Copy(io.MultiWriter(record, onward), from)
				onward.Close()
			})
		}
	})
	return l.Addr().String()
}
