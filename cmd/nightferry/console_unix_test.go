//go:build unix

package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// console returns the address of the console, as the daemon's log has it.
func (x *coreBox) console() string {
	x.t.Helper()
	for l := range strings.Lines(x.log.String()) {
		var line struct{ Console string }
		if json.Unmarshal([]byte(l), &line) == nil && line.Console != "" {
			_, port, err := net.SplitHostPort(line.Console)
			if err != nil {
				x.t.Fatal(err)
			}
			return "https://localhost:" + port
		}
	}
	x.t.Fatalf("the log names no console: %s", x.log)
	return ""
}

// TestConsole reaches a Core over TCP, by the real program: commands with a token, and a browser with a link.
func TestConsole(t *testing.T) {
	x := newCoreBox(t)
	contains(t, x.fails(6, "console", "link"), "not running")
	x.edit("0.0.0.0:4222", "127.0.0.1:0", "0.0.0.0:443", "off", "metrics: 127.0.0.1:9469", "metrics: off\n  console: 127.0.0.1:0",
		"sites: {}", "sites:\n  berlin: {domain: corp, region: emea, zone: Europe/Berlin}")
	x.start()
	at := x.console()
	x.must("console", "certificate", "-o", "ca.pem")
	x.must("access", "create", "boss", "--role", "admin", "-o", "boss.token")

	local := x.env
	remote := append(slices.Clone(local), envCore+"="+at)
	token, ca := envToken+"="+filepath.Join(x.dir, "boss.token"), envCoreCA+"="+filepath.Join(x.dir, "ca.pem")
	x.env = append(slices.Clone(remote), ca)
	contains(t, x.must("sites", "--config", x.config, "--json"), "berlin") // the flag counts before the variable
	contains(t, x.fails(7, "sites"), "needs an API token", "remedy: name its file in NIGHTFERRY_TOKEN_FILE")
	x.env = append(slices.Clone(remote), token)
	contains(t, x.fails(5, "sites"), "certificate", "remedy: .*NIGHTFERRY_CORE_CA")
	x.env = append(slices.Clone(remote), token, ca, envCore+"=http://localhost")
	contains(t, x.fails(2, "sites"), "want https://HOST", "nightferry help environment")
	x.env = append(slices.Clone(remote), token, ca, envCore+"=https://127.0.0.1:1")
	contains(t, x.fails(6, "sites"), "127.0.0.1:1", "remedy: check NIGHTFERRY_CORE")
	x.env = append(slices.Clone(remote), ca, envTokenText+"=nft_wrong")
	contains(t, x.fails(7, "sites"), "the API token is not good")
	x.env = append(slices.Clone(remote), token, ca)
	x.grants()
	contains(t, x.must("halt", "--all", "--reason", "remote"), "by token boss")
	contains(t, x.must("halt", "status"), "remote")
	x.must("resume", "--all")
	contains(t, x.fails(7, "console", "link"), "does not call over the local socket")
	contains(t, x.must("audit", "--what", "halt"), "token boss")
	x.env = local
	x.browse(at)
	x.stop()
}

const calls = "/v1/"

// browse signs in by a link, as a browser does.
func (x *coreBox) browse(at string) {
	x.t.Helper()
	t := x.t
	pem, err := os.ReadFile(filepath.Join(x.dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	c := &http.Client{Transport: tr, Jar: jar, Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	ask := func(method, path, form string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, at+path, strings.NewReader(form))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Origin", at)
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(b)
	}
	if code, _ := ask("GET", calls+"sites", ""); code != http.StatusUnauthorized {
		t.Errorf("without a session: %d", code)
	}
	u, err := url.Parse(strings.TrimSpace(x.must("console", "link")))
	if err != nil {
		t.Fatal(err)
	}
	if code, page := ask("GET", u.Path, ""); code != http.StatusOK || !strings.Contains(page, "<button>") {
		t.Errorf("the link: %d %s", code, page)
	}
	form := url.Values{"link": {strings.TrimPrefix(u.Path, "/signin/link/")}}.Encode()
	if code, page := ask("POST", "/signin/link", form); code != http.StatusSeeOther {
		t.Fatalf("its form: %d %s", code, page)
	}
	if code, text := ask("GET", calls+"sites", ""); code != http.StatusOK || !strings.Contains(text, "berlin") {
		t.Errorf("with a session: %d %s", code, text)
	}
	if code, page := ask("GET", "/sites/berlin", ""); code != http.StatusOK || !strings.Contains(page, "berlin") || !strings.Contains(page, "/signin/out") {
		t.Errorf("a page: %d %s", code, page)
	}
	if code, text := ask("POST", calls+"console/link", ""); code != http.StatusForbidden {
		t.Errorf("a session makes a link: %d %s", code, text)
	}
	account, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	contains(t, x.must("audit", "--what", "sign in"), account.Username+` .*by a console link`)
	deadline := time.Now().Add(time.Minute)
	for !strings.Contains(x.must("incidents"), "console-link") {
		if time.Now().After(deadline) {
			t.Fatal("the use of a link is no incident")
		}
	}
	list := x.lines("console", "sessions")
	if len(list) != 1 || !strings.HasSuffix(list[0]["person"].(string), "(console link)") {
		t.Fatalf("sessions %v", list)
	}
	x.must("console", "end", list[0]["id"].(string))
	if code, _ := ask("GET", calls+"sites", ""); code != http.StatusUnauthorized {
		t.Errorf("after its end: %d", code)
	}
	contains(t, x.fails(14, "console", "end", "unknown"), "session")
}
