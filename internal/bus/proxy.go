package bus

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"

	"golang.org/x/net/http/httpproxy"
	"golang.org/x/net/proxy"
)

// dialVia connects to host:port through the proxy in the environment, if any. The proxy resolves the name, because a
// site's network often cannot. Errors never contain the proxy's password.
func dialVia(ctx context.Context, addr string, get func(string) string) (net.Conn, error) {
	direct := &net.Dialer{}
	conf := httpproxy.Config{HTTPSProxy: firstEnv(get, "HTTPS_PROXY", "ALL_PROXY"), NoProxy: firstEnv(get, "NO_PROXY")}
	via, err := conf.ProxyFunc()(&url.URL{Scheme: "https", Host: addr})
	if err != nil {
		return nil, errors.New("the proxy's address in HTTPS_PROXY or ALL_PROXY is not a URL")
	}
	if via == nil {
		return direct.DialContext(ctx, "tcp", addr)
	}
	conn, err := dialProxy(ctx, direct, via, addr)
	if err != nil {
		return nil, fmt.Errorf("through the proxy %s://%s: %w", via.Scheme, via.Host, err)
	}
	return conn, nil
}

func dialProxy(ctx context.Context, direct *net.Dialer, via *url.URL, addr string) (net.Conn, error) {
	port := map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}[via.Scheme]
	if port == "" {
		return nil, errors.New("only http, https, socks5 and socks5h proxies are known")
	}
	if via.Port() != "" {
		port = via.Port()
	}
	at := net.JoinHostPort(via.Hostname(), port)
	if via.Scheme == "socks5" || via.Scheme == "socks5h" {
		var login *proxy.Auth
		if via.User != nil {
			password, _ := via.User.Password()
			login = &proxy.Auth{User: via.User.Username(), Password: password}
		}
		d, err := proxy.SOCKS5("tcp", at, login, direct)
		if err != nil {
			return nil, err
		}
		return d.(proxy.ContextDialer).DialContext(ctx, "tcp", addr)
	}
	conn, err := direct.DialContext(ctx, "tcp", at)
	if err != nil {
		return nil, err
	}
	if via.Scheme == "https" {
		conn = tls.Client(conn, &tls.Config{MinVersion: tls.VersionTLS12, ServerName: via.Hostname()})
	}
	if err := connectTunnel(ctx, conn, via.User, addr); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// connectTunnel requests a tunnel from an HTTP proxy.
func connectTunnel(ctx context.Context, conn net.Conn, login *url.Userinfo, addr string) error {
	// When ctx ends, for any reason, reads and writes fail.
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	req := (&http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: addr}, Host: addr, Header: http.Header{}}).WithContext(ctx)
	if login != nil {
		password, _ := login.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(login.Username()+":"+password)))
	}
	if err := req.Write(conn); err != nil {
		return fmt.Errorf("ask for %s: %w", addr, err)
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, req)
	if err != nil {
		return fmt.Errorf("ask for %s: %w", addr, err)
	}
	resp.Body.Close() // the body of a tunnel's response is empty
	switch {
	case resp.StatusCode == http.StatusProxyAuthRequired, resp.StatusCode == http.StatusUnauthorized: // tinyproxy sends StatusUnauthorized
		return fmt.Errorf("it wants a login, or another: answer %d (write it as http://user:password@host:port)", resp.StatusCode)
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("it refuses the way to %s: answer %d", addr, resp.StatusCode)
	case r.Buffered() > 0:
		return errors.New("it says something where the tunnel should be")
	}
	return nil
}
