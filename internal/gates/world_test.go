//go:build linux

package gates

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"nightferry/internal/agent"
	"nightferry/internal/bus"
	"nightferry/internal/durable"
	"nightferry/internal/repo"
	"nightferry/internal/s3test"
	"nightferry/internal/testbed"
	"nightferry/internal/trust"
	"nightferry/internal/vault"
	"nightferry/internal/wire"
)

// patience bounds every wait; only failing tests wait that long.
const patience = 60 * time.Second

// coreHost is a name that only the proxy of the tests can resolve.
const coreHost = "core.nightferry.test"

// Sites of the test fleet. The others try to act as rome.
var (
	rome  = wire.Address{Domain: "alpha", Site: "rome"}  // holds package
	paris = wire.Address{Domain: "alpha", Site: "paris"} // same domain; holds image
	oslo  = wire.Address{Domain: "beta", Site: "oslo"}   // another domain; holds image
	bari  = wire.Address{Domain: "alpha", Site: "bari"}  // revoked
	riga  = wire.Address{Domain: "gamma", Site: "riga"}  // in a revoked domain
)

const fleetYAML = `version: 1
store: %[1]s
data: %[2]s/data
log_folder: %[2]s/logs
public: ['tls://%[3]s:%[4]s']
listen: {control: '127.0.0.1:%[4]s', websocket: 'off', metrics: '127.0.0.1:%[5]s'}
channels:
  package: {source: %[2]s/content/package, max_delete: 100%%}
  image: {source: %[2]s/content/image, max_delete: 100%%}
regions: {emea: {}}
domains:
  alpha: {%[6]s}
  beta: {%[7]s}
  gamma: {}
sites:
  rome: {domain: alpha, region: emea, zone: Europe/Rome, targets: {package: %[2]s/targets/rome}}
  bari: {domain: alpha, region: emea, zone: Europe/Rome, targets: {package: %[2]s/targets/bari}}
  paris: {domain: alpha, region: emea, zone: Europe/Paris, targets: {image: %[2]s/targets/paris}}
  oslo: {domain: beta, region: emea, zone: Europe/Oslo, targets: {image: %[2]s/targets/oslo}}
  riga: {domain: gamma, region: emea, zone: Europe/Riga, targets: {package: %[2]s/targets/riga}}
`

// world is a Core in its own process with an encrypted repository on a real S3 server.
type world struct {
	t       *testing.T
	dir     string
	config  string
	bucket  s3test.Bucket
	port    string // of the bus
	metrics string // host:port
	env     []string
	as      *account // account of the Core's process; nil: the account of the tests
	core    *exec.Cmd
	out     *output // all output of the Core and the commands

	vault *vault.Vault // a copy, opened with the master key
	repo  *repo.Repo   // opened with the keys in the vault

	mu     sync.Mutex
	secret map[string]string // values that must not appear in any output, by name
}

// output collects the output of processes.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
	hit chan struct{}
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.hit <- struct{}{}:
	default:
	}
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// until waits for a text in the output.
func (o *output) until(t *testing.T, text string, ended <-chan error) {
	t.Helper()
	limit := time.After(patience)
	for !strings.Contains(o.String(), text) {
		select {
		case <-o.hit:
		case err := <-ended:
			t.Fatalf("the process ended: %v\n%s", err, o)
		case <-limit:
			t.Fatalf("%q was not written:\n%s", text, o)
		}
	}
}

// newWorld creates and starts a Core. host is the Core's name in certificate and tokens; faults apply to its store.
func newWorld(t *testing.T, host string, faults ...s3test.Fault) *world {
	t.Helper()
	b, _ := s3test.Through(t, s3test.S3(t), faults...)
	dir, err := os.MkdirTemp("/tmp", "gates") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	w := &world{t: t, dir: dir, config: filepath.Join(dir, "nightferry.yaml"), bucket: b, as: coreAccount(), out: newOutput(), secret: map[string]string{}}
	w.env = append(w.bucket.Env(), "PATH="+os.Getenv("PATH"), "NIGHTFERRY_CONFIG="+w.config, "NIGHTFERRY_STATE="+filepath.Join(dir, "cli"))
	w.hide("S3 secret", w.bucket.SecretKey)
	w.port = freePort(t)
	w.metrics = "127.0.0.1:" + freePort(t)
	w.as.own(t, dir)
	w.must("core", "init", dir, "--store", w.bucket.URL("fleet"), "--host", host, "--create-repository", "--encrypt")
	readers := func(group string) string {
		if w.as == nil {
			return ""
		}
		return "log_readers: '" + group + "'"
	}
	yaml := fmt.Sprintf(fleetYAML, w.bucket.URL("fleet"), dir, host, w.port, strings.TrimPrefix(w.metrics, "127.0.0.1:"), readers(alphaReaders), readers(betaReaders))
	if err := os.WriteFile(w.config, []byte(yaml), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, channel := range []string{"package", "image"} {
		if err := os.MkdirAll(filepath.Join(dir, "content", channel), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	w.start()
	w.openVault()
	return w
}

func newOutput() *output { return &output{hit: make(chan struct{}, 1)} }

func freePort(t *testing.T) string {
	t.Helper()
	addr, err := testbed.Address()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(addr)
	return port
}

func (w *world) hide(what, value string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.secret[what] = value
}

// command returns a command that runs the program under the Core's account.
func (w *world) command(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(built.bin, "nightferry"), args...)
	cmd.Dir, cmd.Env = w.dir, w.env
	w.as.run(cmd)
	return cmd
}

// must runs a command and returns its standard output.
func (w *world) must(args ...string) string {
	w.t.Helper()
	cmd := w.command(args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, w.out
	if err := cmd.Run(); err != nil {
		w.t.Fatalf("nightferry %v: %v\n%s%s", args, err, out.String(), w.out)
	}
	if args[0] != "site" || args[1] != "token" {
		_, _ = w.out.Write(out.Bytes())
	}
	return out.String()
}

func (w *world) start() {
	w.t.Helper()
	w.core = w.command("core", "run", "--json")
	w.core.Stdout, w.core.Stderr = w.out, w.out
	if err := w.core.Start(); err != nil {
		w.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func(cmd *exec.Cmd) { ended <- cmd.Wait() }(w.core)
	w.t.Cleanup(func() {
		_ = w.core.Process.Signal(os.Interrupt)
		select {
		case err := <-ended:
			if err != nil {
				w.t.Errorf("the Core: %v\n%s", err, w.out)
			}
		case <-time.After(patience):
			_ = w.core.Process.Kill()
			w.t.Errorf("the Core did not stop\n%s", w.out)
		}
	})
	w.out.until(w.t, "the Core serves", ended)
}

// openVault opens a copy of the vault, as a thief with the disk and the master key could.
func (w *world) openVault() {
	w.t.Helper()
	t := w.t
	copied := t.TempDir()
	b, err := os.ReadFile(filepath.Join(w.dir, "data", "vault"))
	if err == nil {
		err = os.WriteFile(filepath.Join(copied, "vault"), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(w.dir, "data", "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	master, err := vault.ParseMaster(raw)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := durable.Open(copied, durable.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	w.vault, err = vault.Open(t.Context(), dir, master, vault.Options{Now: time.Now, Audit: func(context.Context, vault.Access) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	root, err := trust.ParsePublic("root", w.kept("repository/root"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := fromHex(string(w.kept("repository/key")))
	if err != nil {
		t.Fatal(err)
	}
	w.repo, err = repo.Open(t.Context(), testbed.OpenStore(t, w.bucket.URL("fleet"), w.bucket.Options()), repo.Options{Root: &root, Key: key, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	w.hide("master key", string(raw))
	w.hide("master key, its bytes", string(master.Reveal()))
	w.hide("repository key, its bytes", string(key))
	list, err := w.vault.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		if s.Name != "bus/account" && s.Name != "repository/root" && s.Name != "ca" { // these are public, except for one part of ca
			w.hide("vault: "+s.Name, string(w.kept(s.Name)))
		}
		if s.Name == "ca" {
			ca := string(w.kept(s.Name))
			w.hide("vault: the authority's key", ca[strings.LastIndex(ca, "-----BEGIN"):])
		}
	}
}

// kept returns a secret from the copied vault.
func (w *world) kept(name string) []byte {
	w.t.Helper()
	s, _, err := w.vault.Get(w.t.Context(), name, "test")
	if err != nil {
		w.t.Fatal(err)
	}
	if name == "core/nonce" {
		return s.Reveal()
	}
	return bytes.TrimSpace(s.Reveal())
}

// authority opens the Core's authority with its stolen keys.
func (w *world) authority() *bus.Authority {
	w.t.Helper()
	domains := map[string][][]byte{}
	for _, d := range []string{"alpha", "beta", "gamma"} {
		domains[d] = [][]byte{w.kept("domain/" + d + "/signing")}
	}
	a, err := bus.OpenAuthority(bus.AuthorityOptions{Domains: domains, Seeds: bus.Seeds{
		Account: string(w.kept("bus/account")), Operator: w.kept("bus/operator"), Enrol: w.kept("bus/enroll"), Core: w.kept("bus/core")}})
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

// write writes a file to a channel's source folder.
func (w *world) write(channel, name, content string) {
	w.t.Helper()
	path := filepath.Join(w.dir, "content", channel, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
		w.t.Fatal(err)
	}
}

// publish publishes a channel and returns the packs that the release added.
func (w *world) publish(channel string) []string {
	w.t.Helper()
	before := map[string]bool{}
	for _, k := range testbed.Keys(w.t, w.repo.Store(), "packs/") {
		before[k] = true
	}
	w.must("publish", channel)
	var fresh []string
	for _, k := range testbed.Keys(w.t, w.repo.Store(), "packs/") {
		if !before[k] {
			fresh = append(fresh, k)
		}
	}
	if len(fresh) == 0 {
		w.t.Fatalf("publish %s brought no pack", channel)
	}
	return fresh
}

// token creates an enrollment token with the command.
func (w *world) token(site string) (string, *wire.Token) {
	w.t.Helper()
	text := strings.TrimSpace(w.must("site", "token", site))
	t, err := wire.ParseToken(text)
	if err != nil {
		w.t.Fatal(err)
	}
	w.hide("token of "+site, text)
	w.hide("seed in the token of "+site, string(t.Seed))
	w.hide("JWT in the token of "+site, t.JWT)
	return text, t
}

// direct connects to the Core's address, whatever its name resolves to.
func (w *world) direct(ctx context.Context, o bus.ClientOptions) (agent.Bus, error) {
	o.URLs = []string{"tls://localhost:" + w.port}
	return agent.Dial(ctx, o)
}

// enrol enrolls a site as the agent does.
func (w *world) enrol(a wire.Address) *person {
	w.t.Helper()
	t := w.t
	text, token := w.token(a.Site)
	state := filepath.Join(t.TempDir(), "state")
	id, err := agent.Enrol(t.Context(), text, agent.EnrolOptions{StateDir: state, Allow: []string{filepath.Join(w.dir, "targets")}, Version: "test", Now: time.Now, Dial: w.direct})
	if err != nil {
		t.Fatal(err)
	}
	if id.Address() != a {
		t.Fatalf("enrolled as %s, want %s", id.Address(), a)
	}
	p := &person{w: w, at: a, token: token}
	for name, into := range map[string]*string{"identity.seed": &p.seed, "user.jwt": &p.jwt} {
		b, err := os.ReadFile(filepath.Join(state, name))
		if err != nil {
			t.Fatal(err)
		}
		*into = strings.TrimSpace(string(b))
		w.hide(name+" of "+a.Site, *into)
	}
	if p.key, err = bus.Ed25519Of([]byte(p.seed)); err != nil {
		t.Fatal(err)
	}
	p.chain = &wire.Chain{Repo: token.Repo, Root: token.Root}
	return p
}

// files calls fn for each regular file below dir.
func files(t *testing.T, dir string, fn func(path string)) {
	t.Helper()
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			fn(path)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}
