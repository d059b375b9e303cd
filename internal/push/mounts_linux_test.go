package push

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func mount(t *testing.T, dir string) (unmount func()) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=16m"); errors.Is(err, unix.EPERM) {
		t.Skip("this account may not mount; TestUnmountedVolumes has the rule")
	} else if err != nil {
		t.Fatal(err)
	}
	mounted := true
	unmount = func() {
		if mounted {
			mounted = false
			if err := unix.Unmount(dir, 0); err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(unmount)
	return unmount
}

// TestSourceLosesAVolume: a source that lacks half or all of its mounts is
// refused even if any number of deletes is allowed. It passes when they are
// back.
func TestSourceLosesAVolume(t *testing.T) {
	for _, at := range []string{"half", "."} {
		t.Run(at, func(t *testing.T) {
			g := newRig(t, nil)
			unmount := mount(t, filepath.Join(g.source, at))
			g.write(filepath.ToSlash(filepath.Join(at, "x")), noise(1, 1000))
			if at != "." {
				g.write("y", noise(2, 1000))
			}
			g.mustPush(nil)
			unmount()
			if at == "." {
				g.write("stray", noise(3, 1000)) // so that it is not even empty
			}
			_, err := g.push(func(o *Options) { o.AllowDeletes, o.AllowEmpty = true, true })
			guard := (*GuardError)(nil)
			if !errors.As(err, &guard) || guard.Guard != "unmounted" {
				t.Fatalf("%v", err)
			}
			mount(t, filepath.Join(g.source, at))
			g.write(filepath.ToSlash(filepath.Join(at, "x")), noise(4, 1000))
			if res := g.mustPush(nil); res.Number != 2 || res.Changed != 1 || res.Removed != 0 {
				t.Errorf("%+v", res)
			}
		})
	}
}
