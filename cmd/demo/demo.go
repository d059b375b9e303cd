package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/durable"
	"nightferry/internal/repo"
	"nightferry/internal/s3test"
)

// channel is a channel of the demo.
type channel struct {
	name   string
	source string // published folder
	from   string // folder whose content is copied to source
	skip   string // subfolder of from to leave out
}

// demo is the state of one run of the demo.
type demo struct {
	out      io.Writer
	dir      string // folder for all files
	url      string
	store    bucket.Store
	key      ed25519.PrivateKey
	channels []channel
	state    *durable.Root
	pushes   []pushRow
	pulls    []pullRow
}

// run runs the demo and then removes all of its files.
func run(ctx context.Context, out io.Writer, speed int64, stay bool) error {
	if speed != 0 {
		if speed < minSpeed || speed > maxSpeed {
			return fmt.Errorf("--speed %d: want %d to %d", speed, minSpeed, maxSpeed)
		}
		return stage(ctx, out, nil, func(d *demo, t tools, g *s3test.Gateway) error { return d.night(ctx, t, g, speed, stay) })
	}
	goroot, err := goRoot(ctx)
	if err != nil {
		return err
	}
	return show(ctx, out, []channel{
		{name: "package", from: filepath.Join(goroot, "src"), skip: "cmd"},
		{name: "driver", from: filepath.Join(goroot, "src", "cmd")},
	}, stay)
}

func goRoot(ctx context.Context) (string, error) {
	b, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("ask go where it is installed: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

func show(ctx context.Context, out io.Writer, channels []channel, stay bool) error {
	return stage(ctx, out, channels, func(d *demo, t tools, g *s3test.Gateway) error {
		if err := d.play(ctx); err != nil {
			return err
		}
		d.tables()
		return d.fleet(ctx, t, g.Options(), g.URL("demo", "fleet"), stay)
	})
}

// stage builds the programs, starts an S3 server, runs play and cleans up.
func stage(ctx context.Context, out io.Writer, channels []channel, play func(*demo, tools, *s3test.Gateway) error) (err error) {
	began := time.Now()
	dir, err := os.MkdirTemp("", "nightferry-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	d := &demo{out: out, dir: dir, channels: channels}
	d.say("A demo of nightferry. All of it lies in a folder that is gone afterwards:\n  %s", dir)

	programs, err := build(ctx, filepath.Join(dir, "bin"))
	if err != nil {
		return err
	}
	gateway, err := s3test.StartGateway(ctx, filepath.Join(dir, "s3"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, gateway.Close()) }()
	if err := gateway.MakeBucket("demo"); err != nil {
		return err
	}
	d.url = gateway.URL("demo", "content")
	if d.store, err = bucket.Open(ctx, d.url, gateway.Options()); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bucket.Close(d.store)) }() // the server waits for idle connections
	if err := play(d, programs, gateway); err != nil {
		return err
	}
	d.say("\nDone in %.0f s. The same with a bucket of yours: see README.md.", time.Since(began).Seconds())
	return nil
}

// play shows the tour.
func (d *demo) play(ctx context.Context) (err error) {
	d.say("\nThe Core makes a repository in an S3 bucket:")
	d.command("init %s", d.shownURL())
	if err := d.init(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.state.Close()) }()
	d.say("\nIt owns two channels: the Go installation's own library and its commands.")
	for i := range d.channels {
		if err := d.copySource(ctx, &d.channels[i]); err != nil {
			return err
		}
		if err := d.push(ctx, d.channels[i]); err != nil {
			return err
		}
	}
	d.say("\nThe site harbour pulls both. Nothing is there yet, so everything moves.")
	if err := d.pull(ctx, "harbour"); err != nil {
		return err
	}
	d.say("\nContent changes at the Core: files are edited, added, removed, a folder renamed.")
	for _, c := range d.channels {
		if err := change(c); err != nil {
			return err
		}
		if err := d.push(ctx, c); err != nil {
			return err
		}
	}
	d.say("\nAt harbour somebody edits, deletes and cuts files by hand, and adds one.")
	if err := drift(filepath.Join(d.dir, "harbour", d.channels[0].name)); err != nil {
		return err
	}
	d.say("Harbour pulls again; the site airport pulls for the first time.")
	for _, site := range []string{"harbour", "airport"} {
		if err := d.pull(ctx, site); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) init(ctx context.Context) error {
	_, root, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	if _, d.key, err = ed25519.GenerateKey(nil); err != nil {
		return err
	}
	if _, err := repo.Init(ctx, d.store, repo.InitOptions{Root: root, Release: d.key, Now: time.Now()}); err != nil {
		return err
	}
	d.state, err = durable.Open(filepath.Join(d.dir, "state"), durable.Options{Create: true})
	return err
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.out, format+"\n", args...) }

// command prints a command as a user would type it.
func (d *demo) command(format string, args ...any) {
	d.say("  $ nightferry "+format, args...)
}

// shownURL returns the store's URL without the server's address, which changes from run to run.
func (d *demo) shownURL() string { return "s3://demo/content" }
