package bucket

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"golang.org/x/net/http/httpproxy"
)

// Proxies chooses a request's proxy by HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY, also in lower case.
func Proxies(env func(string) string) func(*http.Request) (*url.URL, error) {
	get := func(names ...string) string {
		for _, n := range names {
			for _, name := range []string{n, strings.ToLower(n)} {
				if v := env(name); v != "" {
					return v
				}
			}
		}
		return ""
	}
	c := httpproxy.Config{HTTPProxy: get("HTTP_PROXY", "ALL_PROXY"), HTTPSProxy: get("HTTPS_PROXY", "ALL_PROXY"), NoProxy: get("NO_PROXY")}
	choose := c.ProxyFunc()
	return func(r *http.Request) (*url.URL, error) { return choose(r.URL) }
}

// TrustBundle adds the certificates of AWS_CA_BUNDLE to the system's, as the AWS SDK reads that variable.
func TrustBundle(t *http.Transport, env func(string) string) error {
	file := env("AWS_CA_BUNDLE")
	if file == "" {
		return nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("AWS_CA_BUNDLE: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return fmt.Errorf("AWS_CA_BUNDLE: %s holds no certificate in PEM form", file)
	}
	t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	return nil
}

// proxyAuthError is a proxy's 407 to a request for a tunnel.
type proxyAuthError struct{ offers []string }

func (e *proxyAuthError) Error() string { return "the proxy asks for a sign-in" }

func onConnect(_ context.Context, _ *url.URL, _ *http.Request, r *http.Response) error {
	if r.StatusCode == http.StatusProxyAuthRequired {
		return &proxyAuthError{r.Header.Values("Proxy-Authenticate")}
	}
	return nil
}

// signInHint tells how to sign in at a proxy that offers these schemes.
func signInHint(offers []string) string {
	for _, o := range offers {
		if scheme, _, _ := strings.Cut(strings.ToLower(strings.TrimSpace(o)), " "); scheme == "basic" {
			return "put the proxy's user and password into HTTPS_PROXY or HTTP_PROXY: http://USER:PASSWORD@HOST:PORT"
		}
	}
	if len(offers) == 0 {
		return "put the proxy's user and password into HTTPS_PROXY or HTTP_PROXY"
	}
	return "the proxy takes no password, only " + strings.Join(offers, ", ") + ", which nightferry does not speak: let the proxy pass this host without sign-in, " +
		"or run a relay that signs in (such as cntlm or px) on this machine and name it in HTTPS_PROXY"
}
