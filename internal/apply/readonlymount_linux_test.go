package apply

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nightferry/internal/disktest"
	"nightferry/internal/kinds"
)

// TestReadOnlyVolume: the run, the agent's check and the incident give one cause and one remedy for a target whose
// volume is mounted read-only, for a new target and for one that holds a release.
func TestReadOnlyVolume(t *testing.T) {
	p, src, _ := dirs(t, tree{"a": "a"})
	p.publish(src)
	volume := filepath.Join(t.TempDir(), "volume")
	disktest.Volume(t, volume, 64<<20)
	filled, empty := filepath.Join(volume, "filled"), filepath.Join(volume, "empty")
	try(t, os.Mkdir(empty, 0o755))
	p.must(filled, nil)
	lay(t, src, tree{"a": "b"})
	p.publish(src)
	try(t, disktest.SetReadOnly(volume, true))
	t.Cleanup(func() { try(t, disktest.SetReadOnly(volume, false)) })
	for _, dst := range []string{filled, empty} {
		_, err := p.pull(dst, nil)
		var only *ReadOnlyError
		if !errors.As(err, &only) {
			t.Fatal(err)
		}
		if err.Error() != only.Error() || !strings.Contains(only.Error(), "read-only file system") {
			t.Errorf("the run ends with %q", err)
		}
		if err := CheckWritable(dst); err == nil || err.Error() != only.Error() {
			t.Errorf("the check: %v", err)
		}
		if r := kinds.Remedy(kinds.RunFails, "site a, channel b: two runs in a row ended failed, the last is 12345678: "+only.Error()); only.Remedy() == "" || r != only.Remedy() {
			t.Errorf("two remedies: %q and %q", only.Remedy(), r)
		}
	}
	if _, err := Inspect(filled, Options{Channel: channel, Now: time.Now}); !errors.As(err, new(*ReadOnlyError)) {
		t.Errorf("a check of the content: %v", err)
	}
}
