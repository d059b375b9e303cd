package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// peer is one tool of the comparison, set up for one bucket.
type peer struct {
	name    string
	version string
	bin     string
	env     []string
	init    []string                 // creates the repository, if the tool has one
	push    func(src string) command // source folder to bucket
	pull    func(dst string) command // bucket to target folder
	result  func(dst string) string  // the folder below dst that holds the files
	own     string                   // the tool's own folder in the target, not content
	note    string                   // remark that readers need to judge its numbers
}

// store gives a tool its bucket and a folder for its cache.
type store struct {
	addr   string // host:port of the proxy or the server
	bucket string
	home   string
	src    string
}

func (s store) env() []string {
	return []string{
		"HOME=" + s.home, "XDG_CACHE_HOME=" + s.home + "/cache", "XDG_CONFIG_HOME=" + s.home + "/config",
		"XDG_STATE_HOME=" + s.home + "/state",
		"AWS_ACCESS_KEY_ID=" + accessKey, "AWS_SECRET_ACCESS_KEY=" + secretKey, "AWS_DEFAULT_REGION=" + region,
		"AWS_REGION=" + region,
	}
}

func same(dst string) string { return dst }

// newPeer sets a tool up as its manual recommends for this work; the report lists deviations from its defaults.
func (b *bench) newPeer(ctx context.Context, name string, s store) (*peer, error) {
	switch name {
	case "nightferry":
		return b.nightferry(ctx, s)
	case "restic":
		return restic(ctx, s)
	case "rclone":
		return rclone(ctx, s)
	case "aws":
		return awscli(ctx, s)
	}
	return nil, fmt.Errorf("no tool %q: the tools are nightferry, restic, rclone, aws", name)
}

func (b *bench) nightferry(ctx context.Context, s store) (*peer, error) {
	bin := filepath.Join(b.dir, "bin", "nightferry")
	if err := tool(ctx, "", nil, "go", "build", "-o", bin, "nightferry/cmd/nightferry"); err != nil {
		return nil, fmt.Errorf("build nightferry: %w", err)
	}
	url := fmt.Sprintf("s3://%s/repo?region=%s&endpoint=http://%s", s.bucket, region, s.addr)
	p := &peer{name: "nightferry", bin: bin, env: s.env(), result: same, init: []string{bin, "init", url},
		own: ".nightferry/", note: "keeps its own state in the target's folder .nightferry, which is not counted as extra"}
	p.push = func(src string) command {
		return command{s.home, []string{bin, "push", "--allow-unportable-names", "--allow-deletes", src, url, "package"}, p.env}
	}
	p.pull = func(dst string) command { return command{s.home, []string{bin, "pull", url, "package", dst}, p.env} }
	return p, p.ask(ctx, "version")
}

func restic(ctx context.Context, s store) (*peer, error) {
	bin, err := find("restic", "apt-get install restic")
	if err != nil {
		return nil, err
	}
	p := &peer{name: "restic", bin: bin, init: []string{bin, "init", "-q"},
		note: "writes every file again in a restore and removes none: what the source no longer has is left as extra"}
	p.env = append(s.env(), "RESTIC_REPOSITORY=s3:http://"+s.addr+"/"+s.bucket, "RESTIC_PASSWORD=benchmark")
	p.push = func(src string) command { return command{s.home, []string{bin, "backup", "-q", src}, p.env} }
	p.pull = func(dst string) command {
		return command{s.home, []string{bin, "restore", "-q", "latest", "--target", dst}, p.env}
	}
	p.result = func(dst string) string { return filepath.Join(dst, s.src) }
	return p, p.ask(ctx, "version")
}

func rclone(ctx context.Context, s store) (*peer, error) {
	bin, err := find("rclone", "go install github.com/rclone/rclone@latest")
	if err != nil {
		return nil, err
	}
	p := &peer{name: "rclone", bin: bin, result: same}
	p.env = append(s.env(), "RCLONE_CONFIG_S_TYPE=s3", "RCLONE_CONFIG_S_PROVIDER=Minio", "RCLONE_CONFIG_S_ENV_AUTH=true",
		"RCLONE_CONFIG_S_ENDPOINT=http://"+s.addr, "RCLONE_CONFIG_S_REGION="+region, "RCLONE_CONFIG=/notfound")
	sync := func(from, to string) command {
		return command{s.home, []string{bin, "sync", "-q", "--fast-list", "--transfers", "32", "--checkers", "32", from, to}, p.env}
	}
	p.push = func(src string) command { return sync(src, "s:"+s.bucket) }
	p.pull = func(dst string) command { return sync("s:"+s.bucket, dst) }
	return p, p.ask(ctx, "version")
}

func awscli(ctx context.Context, s store) (*peer, error) {
	// Debian's, even if another one comes first on the PATH.
	bin := "/usr/bin/aws"
	if _, err := os.Stat(bin); err != nil {
		return nil, fmt.Errorf("find aws-cli: %w: apt-get install awscli", err)
	}
	p := &peer{name: "aws", bin: bin, env: s.env(), result: same,
		note: "takes a file of equal size whose time is older than the upload for unchanged"}
	sync := func(from, to string) command {
		return command{s.home, []string{bin, "--endpoint-url", "http://" + s.addr, "s3", "sync", "--delete",
			"--only-show-errors", from, to}, p.env}
	}
	p.push = func(src string) command { return sync(src, "s3://"+s.bucket) }
	p.pull = func(dst string) command { return sync("s3://"+s.bucket, dst) }
	return p, p.ask(ctx, "--version")
}

// ask reads the tool's version from its own output.
func (p *peer) ask(ctx context.Context, arg string) error {
	cmd := exec.CommandContext(ctx, p.bin, arg)
	cmd.Env = append(os.Environ(), p.env...)
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("ask %s for its version: %w", p.name, err)
	}
	p.version, _, _ = strings.Cut(strings.TrimSpace(string(out)), "\n")
	// Drop details of the kernel and the machine from the version.
	if f := strings.Fields(p.version); len(f) > 2 {
		p.version = strings.Join(f[:2], " ")
	} else if len(f) == 1 && strings.Contains(p.version, "/") {
		p.version = f[0]
	}
	return nil
}
