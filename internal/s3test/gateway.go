// Package s3test starts real S3 servers, versitygw and MinIO, each in a process of its own. It also provides proxies that
// count, delay and damage the traffic between a client and such a server.
//
// Tests, the demo and the benchmarks use it; no released program imports it.
package s3test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"nightferry/internal/bucket"
)

// Server holds the address and the credentials of an S3 server.
type Server struct {
	Endpoint  string // http://127.0.0.1:PORT
	Region    string
	AccessKey string
	SecretKey string
}

// serverAt returns the server at an endpoint, with the credentials of all servers of this package. cmd/s3gateway has the
// same.
func serverAt(endpoint string) Server {
	return Server{Endpoint: endpoint, Region: "us-east-1", AccessKey: "nightferry", SecretKey: "nightferry-secret"}
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

// Gateway is versitygw, an S3 server over a folder: the program cmd/s3gateway on a loopback port. It ends when this process
// ends, even if this process is killed.
type Gateway struct {
	Server
	dir   string
	input io.Closer // its end stops the program
	ended chan error
}

// StartGateway starts the server over dir/data, in which buckets are folders, and returns when it responds. The server
// removes dir when it ends. It needs a file system with extended attributes; without them, and on Windows, it keeps
// metadata in dir/meta.
func StartGateway(ctx context.Context, dir string) (*Gateway, error) {
	program, err := gatewayProgram(ctx)
	if err != nil {
		return nil, fmt.Errorf("start the S3 server: %w", err)
	}
	// Not CommandContext: on an interrupt the server's clients must end first.
	cmd := exec.Command(program, dir)
	var log bytes.Buffer
	cmd.Stderr = &log
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start the S3 server: %w", err)
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start the S3 server: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the S3 server: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { input.Close() })
	url, err := bufio.NewReader(output).ReadString('\n')
	if err != nil || !stop() {
		input.Close()
		return nil, fmt.Errorf("start the S3 server on %s: %w: %s", dir, errors.Join(ctx.Err(), cmd.Wait()), bytes.TrimSpace(log.Bytes()))
	}
	g := &Gateway{Server: serverAt(strings.TrimSpace(url)), dir: dir, input: input, ended: make(chan error, 1)}
	go func() {
		if err := cmd.Wait(); err != nil {
			g.ended <- fmt.Errorf("the S3 server on %s: %w: %s", dir, err, bytes.TrimSpace(log.Bytes()))
		}
		close(g.ended)
	}()
	return g, nil
}

// Close stops the server, and returns when it has stopped and its folder is removed.
func (g *Gateway) Close() error {
	g.input.Close()
	return <-g.ended
}

// MakeBucket makes an empty bucket. It succeeds if the bucket exists.
func (g *Gateway) MakeBucket(name string) error {
	err := os.Mkdir(filepath.Join(g.dir, "data", name), 0o755)
	if err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make bucket %s: %w", name, err)
	}
	return nil
}
