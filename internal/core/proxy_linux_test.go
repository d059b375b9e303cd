package core_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"nightferry/internal/agent"
	"nightferry/internal/bus"
	"nightferry/internal/proxytest"
)

const (
	coreName  = "core.nightferry.test"
	storeName = "s3.nightferry.test"
)

// TestAgentThroughProxies: a site to which neither the Core nor the store is a
// name joins, converges and reports through a real proxy that wants a login.
func TestAgentThroughProxies(t *testing.T) {
	w := newWorld(t, nil)
	w.named()
	for i := range 40 {
		w.write(fmt.Sprintf("f%02d.txt", i), strings.Repeat(fmt.Sprint("text ", i), 5000))
	}
	w.publish("package")
	for _, p := range []struct {
		site, scheme string
		variables    []string
		*proxytest.Proxy
		ask     func(name string) string // how a name is asked for
		refused string                   // what a wrong password is answered
	}{
		{"osaka", "http", []string{"HTTPS_PROXY"}, proxytest.Tinyproxy(t, "ferry", "open-sesame", coreName, storeName),
			func(name string) string { return "CONNECT " + name + ":" }, "wants a login"},
		{"tokyo", "socks5", []string{"ALL_PROXY"}, proxytest.Microsocks(t, "ferry", "open-sesame", coreName, storeName),
			func(name string) string { return "\x05\x01\x00\x03" + string(rune(len(name))) + name }, "authentication"},
	} {
		t.Run(p.scheme, func(t *testing.T) {
			env := func(password string) func(string) string {
				vars := map[string]string{}
				for _, v := range p.variables {
					vars[v] = p.scheme + "://ferry:" + password + "@" + p.Addr
				}
				return func(name string) string { return vars[name] }
			}
			_, err := w.enter(p.site, func(o *agent.EnrolOptions) { o.Env = env("wrong-word") })
			if err == nil || !strings.Contains(err.Error(), p.refused) || strings.Contains(err.Error(), "wrong-word") {
				t.Errorf("with a wrong password: %v", err)
			}
			state, err := w.enter(p.site, func(o *agent.EnrolOptions) { o.Env = env("open-sesame") })
			if err != nil {
				t.Fatal(err)
			}
			w.agent(state, func(o *agent.Options) { o.Env = env("open-sesame") })
			w.untilCurrent(1, p.site)
			if !w.same(w.folder(p.site, "package")) {
				t.Error("what arrived is not the source")
			}
			said := p.Asked()
			for _, name := range []string{coreName, storeName} {
				if !strings.Contains(said, p.ask(name)) {
					t.Errorf("the proxy was not asked for %s", name)
				}
			}
			if strings.Contains(said, "GET ") || strings.Contains(said, "X-Amz-Signature") {
				t.Error("the proxy could read what is none of its business")
			}
			if w.said("open-sesame") || w.said("wrong-word") {
				t.Error("a log tells the proxy's login")
			}
		})
	}
}

// named gives Core and store names that only proxies resolve, and the store
// TLS.
func (w *world) named() {
	w.t.Helper()
	t := w.t
	ca, err := bus.NewCA("store", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	chain, key, err := ca.Server([]string{storeName}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(chain, key)
	if err != nil {
		t.Fatal(err)
	}
	authority, _, err := ca.PEM()
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	behind, err := url.Parse(w.bucket.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewUnstartedServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(behind)
		r.Out.Host = r.In.Host // the signature covers it
	}})
	front.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	front.StartTLS()
	t.Cleanup(front.Close)
	// An agent's content comes with the system's roots, of which this is one for now.
	shared := http.DefaultTransport.(*http.Transport)
	old := shared.TLSClientConfig
	shared.TLSClientConfig = &tls.Config{RootCAs: roots}
	t.Cleanup(func() { shared.TLSClientConfig = old })

	b := w.bucket
	var addr string
	b.Endpoint, addr = at(t, front.URL, storeName)
	w.stop()
	w.options.StoreURL = b.URL("")
	// The Core has its own way.
	w.options.Store.HTTPClient = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		}}}
	_, port, _ := net.SplitHostPort(w.options.Addr)
	w.settings.URLs = []string{"tls://" + coreName + ":" + port}
	w.start()
}

// at moves a URL's host to a name.
func at(t *testing.T, raw, host string) (named, addr string) {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	addr = u.Host
	u.Host = host + ":" + u.Port()
	return u.String(), addr
}
