package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"nightferry/internal/api"
	"nightferry/internal/bus"
	"nightferry/internal/digest"
	"nightferry/internal/ledger"
	"nightferry/internal/runs"
)

// consoleSize is a fleet whose facts are written into the ledger: no agent is connected.
type consoleSize struct{ Sites, Channels, Runs int }

// pageResult is the cost of one page.
type pageResult struct {
	Fleet      consoleSize
	Path       string
	First      time.Duration // after the Core has started
	Median     time.Duration // of later requests
	Bytes      int64         // as sent, compressed where the Core compresses
	Plain      int64         // as the browser reads it
	CoreMemory int64         // VmRSS of the Core afterwards
}

// consoleResult holds the results of the console part.
type consoleResult struct {
	Run   string
	Load  float64
	Pages []pageResult
}

const pageRepeats = 11

// consolePart measures the pages of the console over two fleets.
func (b *bench) consolePart(ctx context.Context) error {
	sizes := []consoleSize{{1000, 4, 10_000}, {10_000, 1, 10_000}}
	if b.quick {
		sizes = []consoleSize{{20, 2, 100}}
	}
	res := &consoleResult{Run: b.results.run, Load: loadAverage()}
	for _, size := range sizes {
		if err := b.consoleFleet(ctx, size, res); err != nil {
			return fmt.Errorf("the console over %d sites: %w", size.Sites, err)
		}
	}
	b.results.Console = res
	return nil
}

func (b *bench) consoleFleet(ctx context.Context, size consoleSize, res *consoleResult) (err error) {
	if err := b.clean(); err != nil {
		return err
	}
	const bucket = "console"
	if err := os.Mkdir(filepath.Join(b.data, bucket), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the bucket: %w", err)
	}
	defer func() { err = errors.Join(err, b.drop(bucket)) }()
	c := &consoleCore{dir: filepath.Join(b.scratch(), "core"), program: filepath.Join(b.dir, "bin", "nightferry")}
	if err := tool(ctx, "", nil, "go", "build", "-o", c.program, "nightferry/cmd/nightferry"); err != nil {
		return fmt.Errorf("build nightferry: %w", err)
	}
	c.env = append(os.Environ(), store{home: filepath.Join(b.scratch(), "home")}.env()...)
	if err := c.init(ctx, storeURL(bucket, b.backend), size); err != nil {
		return err
	}
	// The Core publishes the channels. The holdings of the sites are written while it is stopped.
	if err := c.start(ctx); err != nil {
		return err
	}
	published := tool(ctx, c.dir, c.env, c.program, "publish", "--config", c.config())
	if err := errors.Join(published, c.proc.stop()); err != nil {
		return err
	}
	if err := c.fill(ctx, size); err != nil {
		return err
	}
	if err := c.start(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.proc.stop()) }()
	browser, err := c.signIn(ctx)
	if err != nil {
		return err
	}
	for _, path := range []string{"/", "/sites", "/live", "/runs", "/incidents", "/releases", "/forecast", "/halt", "/sites/site-00007"} {
		p, err := c.measurePage(ctx, browser, path)
		if err != nil {
			return err
		}
		p.Fleet = size
		b.log.Info("page", "sites", size.Sites, "path", path, "first", p.First, "median", p.Median, "bytes", p.Bytes)
		res.Pages = append(res.Pages, p)
	}
	return nil
}

// consoleCore is a Core in a real process with a console.
type consoleCore struct {
	dir, program, door string
	env                []string
	proc               *process
}

func (c *consoleCore) config() string { return filepath.Join(c.dir, "nightferry.yaml") }

func (c *consoleCore) init(ctx context.Context, store string, size consoleSize) error {
	control, err := freePort(ctx)
	if err != nil {
		return err
	}
	if c.door, err = freePort(ctx); err != nil {
		return err
	}
	var s strings.Builder
	fmt.Fprintf(&s, "version: 1\nstore: %q\ndata: %q\npublic: [\"tls://%s\"]\nlisten: {control: %q, websocket: off, metrics: off, console: %q}\n", store, filepath.Join(c.dir, "data"), control, control, c.door)
	s.WriteString("domains: {amer: {}, emea: {}, apac: {}, plant: {}, lab: {}}\nregions: {ap: {}, emea: {}, amer: {}}\ndefaults:\n  windows: 21:00-05:00\n  targets:\n")
	for i := range size.Channels {
		fmt.Fprintf(&s, "    channel-%d: '/srv/{channel}'\n", i)
	}
	s.WriteString("channels:\n")
	for i := range size.Channels {
		source := filepath.Join(c.dir, "source", fmt.Sprint(i))
		if err := writeContent(source, 20, 1<<20); err != nil {
			return err
		}
		fmt.Fprintf(&s, "  channel-%d: {source: %q}\n", i, source)
	}
	s.WriteString("sites:\n")
	zones := []string{"Asia/Tokyo", "Asia/Kolkata", "Europe/Berlin", "Europe/Lisbon", "America/New_York", "America/Los_Angeles", "America/Sao_Paulo"}
	regions := []string{"ap", "ap", "emea", "emea", "amer", "amer", "amer"}
	for i := range size.Sites {
		fmt.Fprintf(&s, "  %s: {domain: %s, region: %s, zone: %s}\n", consoleSite(i), domainOf(i), regions[i%len(regions)], zones[i%len(zones)])
	}
	if err := os.WriteFile(c.config(), []byte(s.String()), 0o644); err != nil {
		return fmt.Errorf("write the Core's configuration: %w", err)
	}
	return tool(ctx, c.dir, c.env, c.program, "core", "init", c.dir, "--store", store, "--create-repository")
}

func consoleSite(i int) string { return fmt.Sprintf("site-%05d", i) }

func (c *consoleCore) start(ctx context.Context) (err error) {
	if c.proc, err = startProcess(ctx, c.env, filepath.Join(c.dir, "core.log"), c.program, "core", "run", "--config", c.config()); err != nil {
		return err
	}
	client := api.NewClient(api.ClientOptions{Dir: filepath.Join(c.dir, "data")})
	for {
		if h, err := client.Health(ctx); err == nil && h.Ready {
			return nil
		}
		select {
		case <-c.proc.ended:
			return fmt.Errorf("the Core ended: %w\n%s", c.proc.err, c.proc.log())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// fill writes the identity of each site, and runs: most sites hold the newest release, and some runs failed.
func (c *consoleCore) fill(ctx context.Context, size consoleSize) (err error) {
	now := time.Now().UTC()
	l, err := ledger.Open(ctx, filepath.Join(c.dir, "data", "ledger.db"), ledger.Options{Now: time.Now})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	for i := range size.Sites {
		_, public, err := bus.NewIdentity()
		if err != nil {
			return fmt.Errorf("make a key: %w", err)
		}
		if _, err := l.Sites.Enrol(ctx, ledger.Identity{Domain: domainOf(i), Site: consoleSite(i), Public: public, Enrolled: now.AddDate(0, -1, 0), JWTExpires: now.AddDate(0, 1, 0), Version: "1.0.0"}); err != nil {
			return err
		}
	}
	var newest []ledger.Release
	for i := range size.Channels {
		list, err := l.Releases(ctx, fmt.Sprintf("channel-%d", i), 1)
		if err != nil || len(list) == 0 {
			return fmt.Errorf("channel-%d has no release: %w", i, err)
		}
		newest = append(newest, list[0])
	}
	for i := range size.Runs {
		site, rel := i%size.Sites, newest[i/size.Sites%size.Channels]
		id := digest.Of(fmt.Append(nil, "run ", i))
		at := now.Add(-time.Duration(size.Runs-i) * 10 * time.Second)
		e := ledger.Event{Channel: rel.Channel, At: at, Start: &ledger.Start{Number: rel.Number, Release: rel.Digest, Tree: rel.Tree, Trigger: "desired"},
			Finish: &ledger.Finish{State: runs.Failed, Cause: "read-only file system", Totals: runs.Totals{}}}
		copy(e.Run[:], id[:])
		if i%20 != 0 {
			e.Finish = &ledger.Finish{State: runs.Verified, Attestation: &ledger.Attestation{At: at, Number: rel.Number, Release: rel.Digest, Tree: rel.Tree, Files: rel.Files, Bytes: rel.Bytes, Verified: true}}
		}
		if _, err := l.Append(ctx, domainOf(site), consoleSite(site), []ledger.Event{e}); err != nil {
			return err
		}
		if err := l.MarkRendered(ctx, e.Run); err != nil { // the Core writes no log file of it
			return err
		}
	}
	return nil
}

// signIn signs in by a console link, as a browser does.
func (c *consoleCore) signIn(ctx context.Context) (*http.Client, error) {
	cmd := exec.CommandContext(ctx, c.program, "console", "link", "--config", c.config())
	cmd.Env = c.env
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("make a console link: %w", err)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	// The Core has made its certificate itself. This measures time, and the secret of the link is of this run alone.
	browser := &http.Client{Jar: jar, Transport: &http.Transport{DisableCompression: true, ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} //nolint:gosec // as the comment says
	browser.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }                                                                    // the first page is measured later
	link, err := url.Parse(strings.TrimSpace(string(out)))
	if err != nil {
		return nil, fmt.Errorf("read the console link: %w", err)
	}
	secret := link.Path[strings.LastIndex(link.Path, "/")+1:]
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+c.door+"/signin/link", strings.NewReader(url.Values{"link": {secret}}.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := browser.Do(req)
	if err != nil {
		return nil, fmt.Errorf("sign in: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusSeeOther {
		return nil, fmt.Errorf("sign in: %s", res.Status)
	}
	return browser, nil
}

func (c *consoleCore) measurePage(ctx context.Context, browser *http.Client, path string) (p pageResult, err error) {
	p.Path = path
	var times []time.Duration
	for range pageRepeats {
		took, sent, err := c.get(ctx, browser, path, "gzip")
		if err != nil {
			return p, err
		}
		times, p.Bytes = append(times, took), sent
	}
	p.First = times[0]
	later := times[1:]
	slices.Sort(later)
	p.Median = later[len(later)/2]
	if _, p.Plain, err = c.get(ctx, browser, path, "identity"); err != nil {
		return p, err
	}
	p.CoreMemory, err = statusBytes(c.proc.cmd.Process.Pid, "VmRSS")
	return p, err
}

func (c *consoleCore) get(ctx context.Context, browser *http.Client, path, encoding string) (took time.Duration, sent int64, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+c.door+path, nil)
	if err != nil {
		return 0, 0, err
	}
	req.Header.Set("Accept-Encoding", encoding)
	began := time.Now()
	res, err := browser.Do(req)
	if err != nil {
		return 0, 0, fmt.Errorf("get %s: %w", path, err)
	}
	defer res.Body.Close()
	var page bytes.Buffer
	if sent, err = io.Copy(&page, res.Body); err != nil {
		return 0, 0, fmt.Errorf("read %s: %w", path, err)
	}
	if res.StatusCode != http.StatusOK || res.Request.URL.Path != path {
		return 0, 0, fmt.Errorf("get %s: %s at %s", path, res.Status, res.Request.URL.Path)
	}
	return time.Since(began), sent, nil
}
