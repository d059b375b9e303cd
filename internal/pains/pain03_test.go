package pains

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"nightferry/internal/push"
)

// rclone #1032: one wrong argument deletes everything everywhere.
func TestPain03_MassDelete(t *testing.T) {
	tests := []struct {
		name    string
		remove  int // of 40 files
		options push.Options
		stopped bool
	}{
		{"as many per cent as allowed", 10, push.Options{}, false},
		{"one more", 11, push.Options{}, true},
		{"everything but one", 39, push.Options{}, true},
		{"fewer per cent, but too many files", 6, push.Options{MaxDeleteFiles: 5}, true},
		{"few files, but too many per cent", 11, push.Options{MaxDeleteFiles: 20}, true},
		{"a stricter share", 3, push.Options{MaxDelete: 5}, true},
		{"meant", 39, push.Options{AllowDeletes: true, MaxDeleteFiles: 1}, false},
	}
	for _, lostCache := range []bool{false, true} {
		for _, tt := range tests {
			t.Run(fmt.Sprintf("%s, cache lost: %v", tt.name, lostCache), func(t *testing.T) {
				w := newWorld(t, plan{})
				for i := range 40 {
					put(t, w.src, fmt.Sprintf("d%d/f%02d", i%3, i), noise(uint64(i), 100))
				}
				w.mustPush(nil)
				site := w.site()
				w.arrive(site)
				kept := untouched(t, site)
				for i := range tt.remove {
					must(t, os.Remove(filepath.Join(w.src, fmt.Sprintf("d%d/f%02d", i%3, i))))
				}
				if lostCache {
					w.state = t.TempDir()
				}
				p, err := w.push(func(o *push.Options) {
					o.MaxDelete, o.MaxDeleteFiles, o.AllowDeletes = tt.options.MaxDelete, tt.options.MaxDeleteFiles, tt.options.AllowDeletes
				})
				if !tt.stopped {
					must(t, err)
					if p.Removed < int64(tt.remove) {
						t.Errorf("removed %d, want %d", p.Removed, tt.remove)
					}
					w.arrive(site)
					return
				}
				var guard *push.GuardError
				if !errors.As(err, &guard) || guard.Guard != "deletes" || len(guard.Paths) < tt.remove {
					t.Fatalf("error %v, want the deletes guard with all %d paths", err, tt.remove)
				}
				says(t, err, fmt.Sprintf("remove %d of 40", tt.remove), "--allow-deletes", "nothing was published")
				if r, err := w.pull(site, nil); err != nil || !r.NoOp {
					t.Errorf("the site saw something: %v", err)
				}
				kept()
			})
		}
	}
}
