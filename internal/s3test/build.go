package s3test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"nightferry/internal/durable"
)

// startedIn is the process's first working directory, which is below the repository's root. A test may leave it.
var startedIn, errStartedIn = os.Getwd()

// gatewayProgram returns the path of the program cmd/s3gateway. It builds the program once for each state of its sources
// and keeps it in the user's cache folder. It is no part of this module, so go test cannot build it.
func gatewayProgram(ctx context.Context) (string, error) {
	sources, err := gatewaySources()
	if err != nil {
		return "", err
	}
	state, err := stateOf(sources)
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	root, err := durable.Open(filepath.Join(cache, "nightferry"), durable.Options{Create: true})
	if err != nil {
		return "", err
	}
	defer root.Close()
	name := "s3gateway-" + state
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	program := filepath.Join(cache, "nightferry", name)
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	unlock, err := lock(ctx, root, "s3gateway.lock") // two builds at once would compile everything twice
	if err != nil {
		return "", err
	}
	defer func() { _ = unlock() }()
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	if err := build(ctx, sources, program+".new"); err != nil {
		return "", err
	}
	return program, root.Rename(name+".new", name)
}

func lock(ctx context.Context, root *durable.Root, name string) (unlock func() error, err error) {
	for {
		unlock, err = durable.Lock(root, name)
		if !errors.Is(err, durable.ErrBusy) {
			return unlock, err
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(err, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// gatewaySources returns the folder of the program's module.
func gatewaySources() (string, error) {
	if errStartedIn != nil {
		return "", errStartedIn
	}
	for dir := startedIn; ; dir = filepath.Dir(dir) {
		sources := filepath.Join(dir, "cmd", "s3gateway")
		if _, err := os.Stat(filepath.Join(sources, "go.mod")); err == nil {
			return sources, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("find cmd/s3gateway: %s is not in a clone of the repository", startedIn)
		}
	}
}

// stateOf returns a name for the contents of the module's files, the compiler and the system.
func stateOf(sources string) (string, error) {
	files, err := filepath.Glob(filepath.Join(sources, "*"))
	if err != nil {
		return "", err
	}
	slices.Sort(files)
	h := sha256.New()
	fmt.Fprintln(h, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return "", err
		}
		fmt.Fprintln(h, filepath.Base(f), len(text))
		h.Write(text)
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:8]), nil
}

func build(ctx context.Context, sources, to string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", to, ".")
	cmd.Dir = sources
	// The program must run here, whatever system the caller builds for.
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH)
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build cmd/s3gateway: %w: %s", err, bytes.TrimSpace(text))
	}
	return nil
}
