package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"nightferry/internal/api"
	"nightferry/internal/ledger"
)

// The two halves of the fleet, with one region and one channel each.
const (
	simRegion, simChannel   = "far", "driver"
	realRegion, realChannel = "near", "package"
)

// fleetCore is a Core in a real process, with the relay that counts the traffic between it and its sites.
type fleetCore struct {
	dir    string
	bin    string // folder of the programs
	env    []string
	relay  *relay
	proc   *process
	client *api.Client
}

func (c *fleetCore) pid() int { return c.proc.cmd.Process.Pid }

// source is the folder of a channel.
func (c *fleetCore) source(channel string) string { return filepath.Join(c.dir, "source", channel) }

// target is the folder of a real site.
func (c *fleetCore) target(site string) string { return filepath.Join(c.dir, "site", site, "depot") }

// startFleetCore sets up a Core as the handbook describes, over an empty bucket, and waits until it serves.
func (b *bench) startFleetCore(ctx context.Context, bucket string, size fleetSize) (_ *fleetCore, err error) {
	c := &fleetCore{dir: filepath.Join(b.scratch(), "core"), bin: filepath.Join(b.dir, "bin")}
	for _, name := range []string{"nightferry", "nightferry-agent"} {
		if err := tool(ctx, "", nil, "go", "build", "-o", filepath.Join(c.bin, name), "nightferry/cmd/"+name); err != nil {
			return nil, fmt.Errorf("build %s: %w", name, err)
		}
	}
	c.env = append(os.Environ(), store{home: filepath.Join(b.scratch(), "home")}.env()...)
	for ch, n := range map[string][2]int{simChannel: {size.simFiles, size.simFiles * 100}, realChannel: {size.realFiles, size.realBytes}} {
		if err := writeContent(c.source(ch), n[0], n[1]); err != nil {
			return nil, fmt.Errorf("make the content of %s: %w", ch, err)
		}
	}
	control, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	if c.relay, err = startRelay(ctx, control); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.stop())
		}
	}()
	// Content bypasses the counting proxy, which would use more CPU than the agents.
	endpoint := b.backend
	if size.endpoint != "" {
		endpoint = size.endpoint
	}
	url := storeURL(bucket, endpoint)
	text := c.config(url, control, size)
	if err := os.WriteFile(filepath.Join(c.dir, "nightferry.yaml"), []byte(text), 0o644); err != nil {
		return nil, fmt.Errorf("write the Core's configuration: %w", err)
	}
	program := filepath.Join(c.bin, "nightferry")
	if err := tool(ctx, c.dir, c.env, program, "core", "init", c.dir, "--store", url, "--create-repository"); err != nil {
		return nil, err
	}
	if c.proc, err = startProcess(ctx, c.env, filepath.Join(c.dir, "core.log"), program, "core", "run", "--config", filepath.Join(c.dir, "nightferry.yaml")); err != nil {
		return nil, err
	}
	c.client = api.NewClient(api.ClientOptions{Dir: filepath.Join(c.dir, "data")})
	return c, c.until(ctx, "the Core to serve", 100*time.Millisecond, func() (bool, error) {
		h, err := c.client.Health(ctx)
		return err == nil && h.Ready, nil
	})
}

// domainOf spreads the sites over domains.
func domainOf(i int) string { return [...]string{"amer", "emea", "apac", "plant", "lab"}[i%5] }

func simSite(i int) string  { return fmt.Sprintf("far-%04d", i) }
func realSite(i int) string { return fmt.Sprintf("near-%02d", i) }
func idleSite(i int) string { return fmt.Sprintf("%s%02d", idlePrefix, i) }

const idlePrefix = "still-"

// storeURL is the URL of a repository in a bucket of the server at an endpoint.
func storeURL(bucket, endpoint string) string {
	return fmt.Sprintf("s3://%s/repo?region=%s&endpoint=http://%s", bucket, region, endpoint)
}

func (c *fleetCore) config(url, control string, size fleetSize) string {
	var s strings.Builder
	fmt.Fprintf(&s, "version: 1\nstore: %q\ndata: %q\npublic: [\"tls://%s\"]\nlisten: {control: %q, websocket: off, metrics: off}\n",
		url, filepath.Join(c.dir, "data"), c.relay.addr, control)
	fmt.Fprintf(&s, "channels:\n  %s: {source: %q}\n  %s: {source: %q}\n", simChannel, c.source(simChannel), realChannel, c.source(realChannel))
	s.WriteString("domains: {amer: {}, emea: {}, apac: {}, plant: {}, lab: {}}\n")
	limit := ""
	if size.rate > 0 {
		limit = fmt.Sprintf("rate: %dMbit, ", size.rate*8/1_000_000)
	}
	fmt.Fprintf(&s, "regions:\n  %s: {targets: {%s: '/srv/far/{site}'}}\n  %s: {%stargets: {%s: %q}}\n", simRegion, simChannel, realRegion, limit, realChannel, c.target("{site}"))
	s.WriteString("sites:\n")
	for i := range size.sims {
		fmt.Fprintf(&s, "  %s: {domain: %s, region: %s, zone: Etc/UTC}\n", simSite(i), domainOf(i), simRegion)
	}
	for i := range size.reals {
		fmt.Fprintf(&s, "  %s: {domain: %s, region: %s, zone: Etc/UTC}\n", realSite(i), domainOf(i), realRegion)
	}
	for i := range size.idle {
		fmt.Fprintf(&s, "  %s: {domain: %s, region: %s, zone: Etc/UTC}\n", idleSite(i), domainOf(i), simRegion)
	}
	return s.String()
}

// writeContent fills a folder with n files of about total bytes that do not compress, like packages. As in real
// content, many files are small and few are large. The content is the same in every run.
func writeContent(dir string, n, total int) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(uint64(n), uint64(total)))
	bytes := rand.NewChaCha8([32]byte{byte(n)})
	sizes, sum := make([]float64, n), 0.0
	for i := range sizes {
		sizes[i] = random.ExpFloat64() + 0.01
		sum += sizes[i]
	}
	for i, x := range sizes {
		content := make([]byte, max(1, int(x/sum*float64(total))))
		if _, err := bytes.Read(content); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file-%05d.cab", i)), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// publish publishes a channel through the Core.
func (c *fleetCore) publish(ctx context.Context, channel string) error {
	err := api.JobCalls{Client: c.client}.Publish(ctx, api.PublishRequest{Channel: channel}, func(*api.JobLine) error { return nil })
	if err != nil {
		return fmt.Errorf("publish %s: %w", channel, err)
	}
	return nil
}

// tokens issues an enrollment token for each site of a region.
func (c *fleetCore) tokens(ctx context.Context, region string, n int) ([]api.IssuedToken, error) {
	out, err := c.client.Tokens(ctx, api.TokenRequest{Wave: n, Scope: api.Scope{Region: region}, Life: ledger.Seconds(time.Hour)})
	if err != nil {
		return nil, fmt.Errorf("issue tokens: %w", err)
	}
	if len(out) != n {
		return nil, fmt.Errorf("issue tokens: %d for %d sites", len(out), n)
	}
	return out, nil
}

// until polls until a condition holds, and fails at once when the Core has ended.
func (c *fleetCore) until(ctx context.Context, what string, every time.Duration, so func() (bool, error)) error {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		ok, err := so()
		if err != nil {
			return fmt.Errorf("wait for %s: %w", what, err)
		}
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, context.Cause(ctx))
		case <-c.proc.ended:
			return fmt.Errorf("wait for %s: the Core has ended:\n%s", what, c.proc.log())
		case <-t.C:
		}
	}
}

// stop ends the Core and the relay.
func (c *fleetCore) stop() error {
	var err error
	if c.client != nil {
		c.client.Close()
	}
	if c.proc != nil {
		err = c.proc.stop()
	}
	if c.relay != nil {
		err = errors.Join(err, c.relay.close())
	}
	return err
}

// process is a program that runs until it is stopped.
type process struct {
	cmd   *exec.Cmd
	file  string        // its log
	ended chan struct{} // closed at the end of the process
	err   error         // its exit error; set before ended closes
}

// startProcess starts a program with its output in a file. It ends with ctx, and with this process.
func startProcess(ctx context.Context, env []string, log string, args ...string) (*process, error) {
	f, err := os.Create(log)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", args[0], err)
	}
	defer f.Close()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, f, f
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", args[0], err)
	}
	p := &process{cmd: cmd, file: log, ended: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// stop sends SIGTERM, and kills the program if it does not end soon.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.cmd.Path, err)
	}
	select {
	case <-p.ended:
		return nil
	case <-time.After(20 * time.Second):
	}
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", p.cmd.Path, err)
	}
	<-p.ended
	return fmt.Errorf("stop %s: it did not end within 20 s", p.cmd.Path)
}

// log returns the end of the program's output.
func (p *process) log() string {
	text, err := os.ReadFile(p.file)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-4096):])
}

func freePort(ctx context.Context) (string, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	addr := l.Addr().String()
	return addr, l.Close()
}
