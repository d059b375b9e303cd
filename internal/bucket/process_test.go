package bucket_test

import (
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"nightferry/internal/bucket"
	"nightferry/internal/s3test"
	"nightferry/internal/testbed"
)

// TestChild is not a test by itself: other tests run it in a child process with a chosen environment.
func TestChild(t *testing.T) {
	job, store := os.Getenv("NIGHTFERRY_CHILD"), os.Getenv("NIGHTFERRY_CHILD_STORE")
	if job == "" {
		return
	}
	s, err := bucket.Open(t.Context(), store, bucket.Options{MaxAttempts: 2, MinBackoff: 1})
	if err != nil {
		fmt.Fprintln(os.Stdout, "CHILD:", err)
		return
	}
	switch job {
	case "roundtrip":
		put(t, s, "from/child", "hello")
		got, _ := get(t, s, "from/child", 0, -1)
		fmt.Fprintln(os.Stdout, "CHILD:", got)
	case "get":
		_, _, err := s.Get(t.Context(), "k", 0, -1)
		fmt.Fprintln(os.Stdout, "CHILD:", err)
	case "count":
		for range 25 {
			increment(t, s)
		}
		fmt.Fprintln(os.Stdout, "CHILD: done")
	}
}

// increment adds one to a number in an object, by compare-and-swap.
func increment(t testing.TB, s bucket.Store) {
	for {
		now, info := get(t, s, "number", 0, -1)
		n, err := strconv.Atoi(now)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Put(t.Context(), "number", bucket.Bytes([]byte(strconv.Itoa(n+1))), bucket.Cond{ETag: info.ETag})
		if err == nil {
			return
		}
		if bucket.KindOf(err) != bucket.KindPrecondition {
			t.Fatal(err)
		}
	}
}

// child starts TestChild with only the given environment and returns its
// output.
func child(t testing.TB, job, store string, env ...string) func() string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChild$", "-test.v")
	cmd.Env = append(env, "NIGHTFERRY_CHILD="+job, "NIGHTFERRY_CHILD_STORE="+store, "HOME="+t.TempDir(), "AWS_EC2_METADATA_DISABLED=true",
		"SystemRoot="+os.Getenv("SystemRoot"))
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() string {
		err := cmd.Wait()
		for line := range strings.Lines(out.String()) {
			if said, ok := strings.CutPrefix(line, "CHILD: "); ok && err == nil {
				return strings.TrimSpace(said)
			}
		}
		t.Fatalf("child: %v\n%s", err, out.String())
		return ""
	}
}

// proxy is a real HTTP proxy: it forwards plain requests, and tunnels the others. It leads every host to the one
// address, so that no name needs to resolve.
func proxy(t *testing.T, address string) (url string, plain, tunnels *atomic.Int64) {
	plain, tunnels = new(atomic.Int64), new(atomic.Int64)
	forward := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", address, r.In.Host
	}}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			plain.Add(1)
			forward.ServeHTTP(w, r)
			return
		}
		tunnels.Add(1)
		to, err := net.Dial("tcp", address)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		w.WriteHeader(http.StatusOK)
		from, said, err := http.NewResponseController(w).Hijack() // the server may have read the client's first bytes already
		if err != nil {
			_ = to.Close()
			return
		}
		go func() { _, _ = io.Copy(to, said); _ = to.Close() }()
		_, _ = io.Copy(from, to)
		_ = from.Close()
	}))
	t.Cleanup(srv.Close)
	return srv.URL, plain, tunnels
}

func TestProxyFromEnvironment(t *testing.T) {
	b := s3test.S3(t)
	address := strings.TrimPrefix(b.Endpoint, "http://")
	addr, plain, _ := proxy(t, address)
	b.Endpoint = "http://s3.nightferry.test"
	if got := child(t, "roundtrip", b.URL("p"), append(b.Env(), "HTTP_PROXY="+addr)...)(); got != "hello" {
		t.Error(got)
	}
	if plain.Load() != 2 {
		t.Errorf("%d requests came by the proxy", plain.Load())
	}
	if got := child(t, "roundtrip", b.URL("p"), append(b.Env(), "ALL_PROXY="+addr)...)(); got != "hello" || plain.Load() != 4 {
		t.Errorf("by ALL_PROXY: %s, %d requests came by the proxy", got, plain.Load())
	}
	// The same over TLS, through a tunnel, with a certificate that only AWS_CA_BUNDLE vouches for.
	target, err := url.Parse("http://" + address)
	if err != nil {
		t.Fatal(err)
	}
	tls := httptest.NewTLSServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Host = r.In.Host
	}})
	defer tls.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: tls.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	addr, _, tunnels := proxy(t, tls.Listener.Addr().String())
	b.Endpoint = "https://example.com" // the name in the test certificate
	if got := child(t, "roundtrip", b.URL("p"), append(b.Env(), "HTTPS_PROXY="+addr, "AWS_CA_BUNDLE="+ca)...)(); got != "hello" {
		t.Error(got)
	}
	if tunnels.Load() == 0 {
		t.Error("nothing came by the tunnel")
	}
	if got := child(t, "get", b.URL("p"), append(b.Env(), "HTTPS_PROXY="+addr)...)(); !strings.Contains(got, "AWS_CA_BUNDLE") {
		t.Errorf("an unknown certificate: %s", got)
	}
}

// Checks the error texts when the line is at fault. None may contain a
// password.
func TestUnreachable(t *testing.T) {
	dead := "127.0.0.1:1" // nothing listens on the port of tcpmux
	env := s3test.Server{AccessKey: "AKIDEXAMPLE", SecretKey: "verysecretkey", Region: "us-east-1"}.Env()
	for name, c := range map[string]struct {
		store string
		env   []string
		want  string
	}{
		"refused":      {"s3://b/p?endpoint=http://" + dead, env, "connection refused"},
		"proxy":        {"s3://b?endpoint=http://s3.nightferry.test", append(env, "HTTP_PROXY=http://user:hunter2@"+dead), "the proxy does not answer"},
		"proxy tunnel": {"s3://b?endpoint=https://s3.nightferry.test", append(env, "HTTPS_PROXY=http://user:hunter2@"+dead), "the proxy does not answer"},
		"proxy host":   {"s3://b?endpoint=http://s3.nightferry.test", append(env, "HTTP_PROXY=http://user:hunter2@nightferry.invalid:80"), "the proxy does not answer"},
		"no keys":      {"s3://b?region=us-east-1&endpoint=http://" + dead, nil, "set AWS_ACCESS_KEY_ID"},
		"no region":    {"s3://b", env[:2], "add ?region=REGION"},
		"no host":      {"s3://b?endpoint=http://nightferry.invalid", env, "no address for the host"},
	} {
		t.Run(name, func(t *testing.T) {
			got := child(t, "get", c.store, c.env...)()
			if !strings.Contains(got, c.want) {
				t.Errorf("%q does not say %q", got, c.want)
			}
			for _, secret := range []string{"hunter2", "verysecretkey", "Signature", "AKIDEXAMPLE"} {
				if strings.Contains(got, secret) {
					t.Errorf("%q tells a secret", got)
				}
			}
		})
	}
}

// Two processes and sixteen goroutines move one object in a directory store by compare-and-swap: no step is lost.
func TestSwapAcrossProcesses(t *testing.T) {
	dir := t.TempDir()
	s := openDir(t, dir)
	put(t, s, "number", "0")
	others := []func() string{child(t, "count", testbed.FileURL(dir)), child(t, "count", testbed.FileURL(dir))}
	each(t, 50, func(int) error {
		increment(t, s)
		return nil
	})
	for _, wait := range others {
		wait()
	}
	if got, _ := get(t, s, "number", 0, -1); got != "100" {
		t.Errorf("100 steps lead to %s", got)
	}
}
