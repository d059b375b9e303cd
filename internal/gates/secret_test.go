//go:build linux

package gates

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"nightferry/internal/proxytest"
	"nightferry/internal/s3test"
	"nightferry/internal/wire"
)

// Passwords that must not appear in any error or log.
const (
	proxyWord = "open-sesame-7f3a"
	wrongWord = "wrong-word-7f3a"
	smtpWord  = "smtp-word-7f3a"
)

// TestSecretsStayWhereTheyBelong runs a Core and its agents through everything that could leak a secret. It enrolls
// through a proxy with a password, then with a wrong one, and with used or damaged tokens. It publishes, and pulls from
// a store that breaks connections and repeats URLs in its errors and redirects. It sends forged requests, sets and
// rotates secrets, reloads and revokes. Then it searches everything that was written for secrets in the wrong place.
func TestSecretsStayWhereTheyBelong(t *testing.T) {
	var broken atomic.Int64
	w := newWorld(t, coreHost, tattle(&broken))
	w.hide("proxy's login", proxyWord)
	w.hide("wrong login", wrongWord)
	w.hide("secret of a person's", smtpWord)
	proxy := w.proxy()
	w.write("package", "a.bin", strings.Repeat("content", 50_000))
	w.publish("package")

	roma := w.agent("rome", proxy, proxyWord)
	first := roma.token()
	roma.must("enroll", "--token-file", first, "--allow", filepath.Join(w.dir, "targets"))
	w.hideState(roma.state)
	broken.Store(15)
	roma.start()
	w.untilFile(filepath.Join(w.dir, "targets", "rome", "a.bin"), "sync", "--site", "rome")
	if broken.Load() > 0 {
		t.Errorf("%d of the store's errors were never seen", broken.Load())
	}

	// Various failures.
	thief := w.agent("thief", proxy, proxyWord)
	thief.fails("enroll", "--token-file", first, "--allow", "/srv/x") // already used
	thief.fails("enroll", w.read(first)[:60], "--allow", "/srv/x")    // truncated, and on the command line
	thief.fails("enroll", "--token-file", first, "--allow", "relative")
	stranger := w.agent("oslo", proxy, wrongWord)
	stranger.fails("enroll", "--token-file", stranger.token(), "--allow", "/srv/x")
	closed := w.agent("closed", "127.0.0.1:"+freePort(t), proxyWord)
	closed.fails("enroll", "--token-file", stranger.lastToken, "--allow", "/srv/x")
	roma.fails("check") // the account of the tests has too many rights
	roma.must("status", "--json")

	w.hand("secret", smtpWord, "set", "smtp")
	w.hand("secret", smtpWord+"\n"+smtpWord, "rotate", "smtp")
	w.must("secret", "list")
	w.must("secret", "rotate", "domain/alpha/signing")
	if out, err := w.command("secret", "set", "smtp", smtpWord).CombinedOutput(); err == nil || bytes.Contains(out, []byte(smtpWord)) {
		t.Errorf("a value on the command line: %v\n%s", err, out)
	}
	p := w.enrol(paris)
	if err := p.enter(); err != nil {
		t.Fatal(err)
	}
	p.listen()
	p.hello()
	if u, err := p.ask("format", "channels/x/head"); err != nil || len(u.Lent) != 2 || len(u.Refused) != 1 { // every answer includes halt
		t.Errorf("asked: %v", err)
	}
	p.say(wire.VerbBeat, p.sign(p.key, rome, wire.VerbBeat, &wire.Beat{}))
	p.answer(map[string]any{wire.VerbRefuse: new(wire.Refusal)})
	w.must("core", "reload")
	w.must("core", "check")
	w.must("site", "revoke", "paris", "--reason", "test")
	for _, args := range [][]string{{"status"}, {"sites"}, {"runs"}, {"incidents", "--all"}, {"audit"}, {"logs"}, {"where", "package/a.bin"}, {"status", "--json"}, {"incidents", "--all", "--json"}, {"audit", "--json"}} {
		w.must(args...)
	}
	roma.stop()

	// The search itself must find a known secret.
	if w.search("the seed's own file", []byte(w.read(filepath.Join(roma.state, "identity.seed")))) == 0 || w.search("a URL", []byte("x&X-Amz-Signature=1")) == 0 {
		t.Fatal("the search finds nothing")
	}
	searched := w.searchAll(roma, thief, stranger, closed)
	if searched < 20 {
		t.Errorf("searched only %d files", searched)
	}
}

// tattle makes a store answer with errors and redirects that repeat the presigned URL, until n is 0.
func tattle(n *atomic.Int64) s3test.Fault {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			left := int64(0)
			if r.URL.Query().Has("X-Amz-Signature") {
				left = n.Add(-1) + 1
			}
			if left <= 0 {
				next.ServeHTTP(rw, r)
				return
			}
			// Escaped: the client drops an answer that is not valid XML.
			said := strings.ReplaceAll("http://"+r.Host+r.URL.RequestURI(), "&", "&amp;")
			switch left % 5 {
			case 0:
				c, _, err := http.NewResponseController(rw).Hijack()
				if err == nil {
					_ = c.(*net.TCPConn).SetLinger(0) // a reset, not a clean close
					_ = c.Close()
				}
			case 1:
				s3test.S3Error(rw, http.StatusForbidden, "SignatureDoesNotMatch", "of "+said)
			case 2:
				http.Redirect(rw, r, "http://elsewhere.invalid"+r.URL.RequestURI(), http.StatusTemporaryRedirect)
			case 3:
				s3test.S3Error(rw, http.StatusInternalServerError, "InternalError", said)
			case 4:
				s3test.S3Error(rw, http.StatusBadRequest, "NobodyKnowsThis", "at "+said)
			}
		})
	}
}

// proxy starts a real proxy that requires a password. Only the proxy can resolve coreHost.
func (w *world) proxy() string {
	w.t.Helper()
	return proxytest.Tinyproxy(w.t, "ferry", proxyWord, coreHost).Addr
}

// until waits until ok returns true.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(2 * patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			w.t.Fatalf("waited in vain for %s\n%s", what, w.out)
		}
	}
}

// untilFile waits for a file and runs a command every two seconds meanwhile.
func (w *world) untilFile(path string, command ...string) {
	w.t.Helper()
	last := time.Now()
	w.until(path, func() bool {
		if time.Since(last) > 2*time.Second {
			w.must(command...)
			last = time.Now()
		}
		_, err := os.Stat(path)
		return err == nil
	})
}

func (w *world) read(path string) string {
	w.t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// hand runs a command with a value on its standard input.
func (w *world) hand(group, value string, args ...string) {
	w.t.Helper()
	cmd := w.command(append([]string{group}, args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(value), w.out, w.out
	if err := cmd.Run(); err != nil {
		w.t.Fatalf("%s %v: %v\n%s", group, args, err, w.out)
	}
}

// hideState registers the secrets in an agent's folder.
func (w *world) hideState(state string) {
	w.t.Helper()
	for _, name := range []string{"identity.seed", "user.jwt", "repository.key"} {
		w.hide(name+" of an agent", w.read(filepath.Join(state, name)))
	}
}

// process is the agent of a site, run as a process.
type process struct {
	w         *world
	site      string
	state     string
	env       []string
	out       *output
	lastToken string
	stop      func()
}

func (w *world) agent(site, proxy, word string) *process {
	w.t.Helper()
	dir := filepath.Join(w.dir, "agents")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		w.t.Fatal(err)
	}
	w.as.own(w.t, dir)
	return &process{w: w, site: site, state: filepath.Join(dir, site), out: newOutput(),
		env: []string{"PATH=" + os.Getenv("PATH"), "HTTPS_PROXY=http://ferry:" + word + "@" + proxy}}
}

func (p *process) command(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(built.bin, "nightferry-agent"), append(args, "--state", p.state)...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = "/", p.env, p.out, p.out
	p.w.as.run(cmd)
	return cmd
}

// token creates a token and returns the file that contains it.
func (p *process) token() string {
	p.w.t.Helper()
	text, _ := p.w.token(p.site)
	p.lastToken = p.state + ".token"
	if err := os.WriteFile(p.lastToken, []byte(text+"\n"), 0o600); err != nil {
		p.w.t.Fatal(err)
	}
	p.w.as.own(p.w.t, p.lastToken)
	return p.lastToken
}

func (p *process) must(args ...string) {
	p.w.t.Helper()
	if err := p.command(args...).Run(); err != nil {
		p.w.t.Fatalf("nightferry-agent %v: %v\n%s", args, err, p.out)
	}
}

func (p *process) fails(args ...string) {
	p.w.t.Helper()
	var exit *exec.ExitError
	if err := p.command(args...).Run(); !errors.As(err, &exit) {
		p.w.t.Errorf("nightferry-agent %v: %v, want it to fail", args[:2], err)
	}
}

func (p *process) start() {
	p.w.t.Helper()
	cmd := p.command("run")
	if err := cmd.Start(); err != nil {
		p.w.t.Fatal(err)
	}
	p.stop = func() {
		p.stop = func() {}
		if err := errors.Join(cmd.Process.Signal(os.Interrupt), cmd.Wait()); err != nil {
			p.w.t.Errorf("the agent: %v\n%s", err, p.out)
		}
	}
	p.w.t.Cleanup(func() { p.stop() })
}

// shapes returns patterns of secrets that must not appear in any output, by name.
func shapes() map[string]*regexp.Regexp {
	return map[string]*regexp.Regexp{
		"a lent URL":         regexp.MustCompile(`X-Amz-(Signature|Credential|Security-Token)`),
		"a seed of the bus":  regexp.MustCompile(`\bS[UAO][A-Z2-7]{56}\b`),
		"a JWT":              regexp.MustCompile(`eyJ[A-Za-z0-9_-]{30,}\.[A-Za-z0-9_-]{30,}`),
		"a token":            regexp.MustCompile(`nf1\.[A-Za-z0-9_-]{30,}`),
		"a private key":      regexp.MustCompile(`PRIVATE KEY`),
		"a secret key file":  regexp.MustCompile(`nightferry-secret`),
		"a login in a URL":   regexp.MustCompile(`://[!#-.0-9;-~]+:[!#-.0-?A-~]+@`), // printable only: in a database, other fields follow a URL
		"an access key pair": regexp.MustCompile(`(?i)secret_?access_?key\W+\S`),
	}
}

// search counts the secrets in b.
func (w *world) search(where string, b []byte) (found int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.secret {
		raw := []byte(s)
		for _, form := range [][]byte{raw, []byte(hex.EncodeToString(raw)), []byte(base64.StdEncoding.EncodeToString(raw)), []byte(base64.RawURLEncoding.EncodeToString(raw))} {
			if len(s) >= 8 && bytes.Contains(b, form) {
				found++
			}
		}
	}
	b = bytes.ReplaceAll(b, []byte("://user:password@"), nil) // part of a remedy's text
	for _, r := range shapes() {
		found += len(r.FindAll(b, -1))
	}
	return found
}

// tell reports each secret in b as an error.
func (w *world) tell(where string, b []byte) {
	w.t.Helper()
	if w.search(where, b) == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for what, s := range w.secret {
		if bytes.Contains(b, []byte(s)) || bytes.Contains(b, []byte(hex.EncodeToString([]byte(s)))) {
			w.t.Errorf("%s: %s", where, what)
		}
	}
	for what, r := range shapes() {
		if at := r.FindIndex(b); at != nil {
			w.t.Errorf("%s: %s, after %q", where, what, b[max(0, at[0]-80):at[0]])
		}
	}
	w.t.Errorf("%s holds a secret", where)
}

// searchAll searches all outputs and files, and returns the number of files.
func (w *world) searchAll(agents ...*process) (n int) {
	w.t.Helper()
	w.tell("output of the Core", []byte(w.out.String()))
	var states []string
	for _, a := range agents {
		w.tell("output of agent "+a.site, []byte(a.out.String()))
		if len(a.out.String()) == 0 {
			w.t.Errorf("agent %s has said nothing: then this proves nothing", a.site)
		}
		states = append(states, a.state)
	}
	belongs := map[string]bool{
		filepath.Join(w.dir, "data", "vault"): true, filepath.Join(w.dir, "data", "master.key"): true, filepath.Join(w.dir, "nightferry-root.key"): true,
	}
	for _, s := range states {
		for _, name := range []string{"identity.seed", "user.jwt", "repository.key"} {
			belongs[filepath.Join(s, name)] = true
		}
		belongs[s+".token"] = true
	}
	files(w.t, w.dir, func(path string) {
		info, err := os.Stat(path)
		if err != nil && errors.Is(err, fs.ErrNotExist) {
			return // a temporary file of the running Core
		}
		if belongs[path] {
			if err == nil && info.Mode().Perm()&0o077 != 0 {
				w.t.Errorf("%s: mode %v", path, info.Mode())
			}
			return
		}
		b, err := os.ReadFile(path)
		if err != nil {
			w.t.Error(err)
		}
		n++
		w.tell(path, b)
	})
	return n
}
