// Package s3test starts real S3 servers (versitygw in this process, MinIO in its own). It also provides proxies that
// count, delay and damage the traffic between a client and such a server.
//
// Tests, the demo and the benchmarks use it; no released program imports it.
package s3test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"

	"nightferry/internal/bucket"
	"nightferry/internal/testbed"
)

// Server holds the address and the credentials of an S3 server.
type Server struct {
	Endpoint  string // http://127.0.0.1:PORT
	Region    string
	AccessKey string
	SecretKey string
}

// URL returns the store URL of a prefix (which may be empty) of a bucket on the server.
func (s Server) URL(bucketName, prefix string) string {
	return "s3://" + strings.TrimSuffix(bucketName+"/"+prefix, "/") + "?region=" + s.Region + "&endpoint=" + s.Endpoint
}

// Env returns the environment variables with which a child process can log in.
func (s Server) Env() []string {
	return []string{"AWS_ACCESS_KEY_ID=" + s.AccessKey, "AWS_SECRET_ACCESS_KEY=" + s.SecretKey, "AWS_REGION=" + s.Region,
		"AWS_EC2_METADATA_DISABLED=true"}
}

// Options returns the options with which this process can log in, independent of its environment.
func (s Server) Options() bucket.Options {
	return bucket.Options{AccessKey: s.AccessKey, SecretKey: s.SecretKey, UserAgent: "nightferry-testbed/1",
		MinBackoff: 5 * time.Millisecond, MaxBackoff: 50 * time.Millisecond}
}

// Gateway is versitygw, an S3 server over a folder, running inside this process on a loopback port.
//
// There can be one per process. It makes its data folder the process's working directory, because its backend uses
// relative names. So callers must make relative paths absolute before StartGateway. Close restores the working
// directory.
type Gateway struct {
	Server
	dir    string
	back   string
	cancel context.CancelFunc
	done   chan error
}

// StartGateway starts the server over dir/data, in which buckets are folders, and returns when it responds. It needs a
// file system with extended attributes; without them, and on Windows, it keeps metadata in dir/meta.
func StartGateway(ctx context.Context, dir string) (*Gateway, error) {
	back, err := os.Getwd()
	if err != nil {
		return nil, fmt.Errorf("start the S3 server: %w", err)
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("start the S3 server: %w", err)
	}
	g := &Gateway{dir: dir, back: back, done: make(chan error, 1),
		Server: Server{Region: "us-east-1", AccessKey: "nightferry", SecretKey: "nightferry-secret"}}
	for try := 0; ; try++ {
		// The chosen port is free, but another process may take it before the server does.
		err = g.start(ctx)
		if err == nil {
			return g, nil
		}
		if try == 4 || ctx.Err() != nil {
			return nil, fmt.Errorf("start the S3 server on %s: %w", dir, err)
		}
	}
}

func (g *Gateway) start(ctx context.Context) error {
	data, side := filepath.Join(g.dir, "data"), filepath.Join(g.dir, "meta")
	if err := os.MkdirAll(data, 0o755); err != nil {
		return err
	}
	var store meta.MetadataStorer = meta.XattrMeta{}
	opts := posix.PosixOpts{}
	if (meta.XattrMeta{}).Test(data) != nil {
		if err := os.MkdirAll(side, 0o755); err != nil {
			return err
		}
		s, err := meta.NewSideCar(side)
		if err != nil {
			return err
		}
		store, opts.SideCarDir = s, side
	}
	be, err := posix.New(data, store, opts)
	if err != nil {
		return err
	}
	port, err := testbed.FreeAddr()
	if err != nil {
		return err
	}
	g.Endpoint = "http://" + port
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	g.cancel = cancel
	done := make(chan error, 1)
	g.done = done
	go func() {
		done <- embedgw.RunVersityGW(run, be, &embedgw.Config{
			// set because the default one prints a greeting on standard output
			IAMService:     auth.NewIAMServiceSingle(auth.Account{Access: g.AccessKey, Secret: g.SecretKey, Role: auth.RoleAdmin}),
			RootUserAccess: g.AccessKey, RootUserSecret: g.SecretKey, Region: g.Region, Ports: []string{port},
			MaxConnections: 4096, MaxRequests: 4096, MultipartMaxParts: 10000,
			Quiet: true, KeepAlive: true, HealthPath: "/healthz",
		})
	}()
	if err := waitHealthy(ctx, g.Endpoint+"/healthz", done); err != nil {
		cancel()
		return err
	}
	return nil
}

// Close stops the server, and returns when it has stopped. It does not delete the data.
func (g *Gateway) Close() error {
	g.cancel()
	err := <-g.done
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return errors.Join(err, os.Chdir(g.back))
}

// MakeBucket makes an empty bucket. It succeeds if the bucket exists.
func (g *Gateway) MakeBucket(name string) error {
	err := os.Mkdir(filepath.Join(g.dir, "data", name), 0o755)
	if err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make bucket %s: %w", name, err)
	}
	return nil
}

// waitHealthy polls until url returns 200. It fails at once if the server ends before.
func waitHealthy(ctx context.Context, url string, done <-chan error) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
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
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case err := <-done:
			if err == nil {
				err = errors.New("it ended at once")
			}
			return err
		case <-ctx.Done():
			return fmt.Errorf("no answer: %w", ctx.Err())
		case <-tick.C:
		}
	}
}
