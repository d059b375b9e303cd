// Command s3gateway serves versitygw, an S3 server over a folder, for the tests and the demo. It is a module of its own,
// so that the product's module and its test programs do not depend on versitygw and its clients.
//
// s3gateway DIR serves the buckets in DIR/data, prints the server's URL when it responds, and runs until its standard
// input ends. Then it removes DIR. The caller holds a pipe to the input, so the server also ends if the caller is killed.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
)

// internal/s3test has the same.
const (
	accessKey = "nightferry"
	secretKey = "nightferry-secret"
	region    = "us-east-1"
)

func main() { os.Exit(run(context.Background(), os.Args, os.Stdin, os.Stdout, os.Stderr)) }

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) != 2 {
		fmt.Fprintln(stderr, "usage: s3gateway DIR")
		return 2
	}
	// Only the end of the input stops the server: an interrupt of the terminal also reaches the caller, who still needs it.
	signal.Ignore(os.Interrupt, syscall.SIGHUP, syscall.SIGPIPE)
	if err := serve(ctx, args[1], stdin, stdout); err != nil {
		fmt.Fprintln(stderr, "s3gateway:", err)
		return 1
	}
	return 0
}

// serve returns when the input has ended and dir is removed. It leaves the process's working directory, because the
// backend uses relative names.
func serve(ctx context.Context, dir string, stdin io.Reader, stdout io.Writer) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	be, err := open(dir)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var url string
	var ended <-chan error
	for try := 0; ; try++ {
		// The chosen port is free, but another process may take it before the server does.
		if url, ended, err = listen(ctx, be); err == nil {
			break
		}
		if try == 4 {
			return fmt.Errorf("start the S3 server on %s: %w", dir, err)
		}
	}
	if _, err := fmt.Fprintln(stdout, url); err != nil {
		return err
	}
	input := make(chan struct{})
	go func() {
		defer close(input)
		_, _ = io.Copy(io.Discard, stdin) // its error, too, means that the caller is gone
	}()
	select {
	case err := <-ended:
		return fmt.Errorf("the S3 server ended: %w", err)
	case <-input:
	}
	// Not a graceful stop, which waits for idle connections: the caller has finished.
	if err := os.Chdir(filepath.Dir(dir)); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// open opens the backend over dir/data. On a file system without extended attributes, and on Windows, it keeps metadata
// in dir/meta.
func open(dir string) (backend.Backend, error) {
	data, side := filepath.Join(dir, "data"), filepath.Join(dir, "meta")
	if err := os.MkdirAll(data, 0o755); err != nil {
		return nil, err
	}
	if (meta.XattrMeta{}).Test(data) == nil {
		return posix.New(data, meta.XattrMeta{}, posix.PosixOpts{})
	}
	if err := os.MkdirAll(side, 0o755); err != nil {
		return nil, err
	}
	s, err := meta.NewSideCar(side)
	if err != nil {
		return nil, err
	}
	return posix.New(data, s, posix.PosixOpts{SideCarDir: side})
}

// listen starts the server on a free loopback port and returns its URL when it responds.
func listen(ctx context.Context, be backend.Backend) (url string, ended <-chan error, err error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	port := l.Addr().String()
	if err := l.Close(); err != nil {
		return "", nil, err
	}
	health := "/" + rand.Text() // another server at this port does not know it
	done := make(chan error, 1)
	go func() {
		done <- embedgw.RunVersityGW(ctx, be, &embedgw.Config{
			// set because the default one prints a greeting on standard output
			IAMService:     auth.NewIAMServiceSingle(auth.Account{Access: accessKey, Secret: secretKey, Role: auth.RoleAdmin}),
			RootUserAccess: accessKey, RootUserSecret: secretKey, Region: region, Ports: []string{port},
			MaxConnections: 4096, MaxRequests: 4096, MultipartMaxParts: 10000,
			Quiet: true, KeepAlive: true, HealthPath: health,
		})
	}()
	if err := waitHealthy(ctx, "http://"+port+health, done); err != nil {
		return "", nil, err
	}
	return "http://" + port, done, nil
}

// waitHealthy polls until url returns 200. It fails at once if the server ends before.
func waitHealthy(ctx context.Context, url string, done <-chan error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		if resp, err := client.Do(req); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case err := <-done:
			return errors.Join(errors.New("it ended at once"), err)
		case <-ctx.Done():
			return fmt.Errorf("no answer: %w", ctx.Err())
		case <-tick.C:
		}
	}
}
