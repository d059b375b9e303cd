package core_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"nightferry/internal/disktest"
	"nightferry/internal/query"
	"nightferry/internal/trust"
)

// TestEachObstacleHasItsRemedy: an obstacle to a site's changes is one incident, with that cause and with the
// remedy for it, and ends once the remedy was applied.
func TestEachObstacleHasItsRemedy(t *testing.T) {
	w := newWorld(t, nil)
	target := w.folder("osaka", "package")
	disktest.Volume(t, target, 16<<20)
	var stop func()
	t.Cleanup(func() {
		if stop != nil {
			stop() // it holds the target open
		}
	})
	w.write("d/a.txt", "1")
	w.publish("package")
	stop = w.joined("osaka", nil)
	w.untilCurrent(1, "osaka")
	release := trust.ReleaseNumber(1)
	for _, o := range []struct {
		name, cause, remedy string
		set                 func(t *testing.T) (end func())
	}{
		{"immutable file", "marked immutable or append-only", "chattr -i -a", func(t *testing.T) func() {
			return disktest.Mark(t, filepath.Join(target, "d", "a.txt"), disktest.Immutable)
		}},
		{"append-only folder", "its folder is marked immutable or append-only", "chattr -i -a", func(t *testing.T) func() {
			return disktest.Mark(t, filepath.Join(target, "d"), disktest.AppendOnly)
		}},
		{"read-only volume", "read-only file system", "remount,rw", func(t *testing.T) func() {
			remount := func(only bool) {
				w.until("a volume that nobody writes to", func() bool { return disktest.SetReadOnly(target, only) == nil })
			}
			remount(true)
			return func() { remount(false) }
		}},
	} {
		t.Run(o.name, func(t *testing.T) {
			end := o.set(t)
			release++
			w.write("d/a.txt", fmt.Sprint(release))
			w.publish("package")
			var found query.Incident
			w.until("the incident", func() bool {
				list, err := w.core.Query.Incidents(w.t.Context(), false)
				if err != nil || len(list) != 1 {
					return false
				}
				found = list[0]
				return true
			})
			if found.Key != "run/package" || !strings.Contains(found.Text, o.cause) || !strings.Contains(found.Remedy, o.remedy) || strings.Contains(found.Text, "locked") || strings.Contains(found.Remedy, "Also: ") {
				t.Errorf("incident %s: %s\nremedy: %s", found.Key, found.Text, found.Remedy)
			}
			end()
			w.untilCurrent(release, "osaka")
			w.untilSame(target)
			w.untilOver("run")
		})
	}
}
