package apply

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nightferry/internal/runs"
)

func TestPlantedLinksLeadNowhere(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs the right to make symlinks")
	}
	plant := map[string]func(t *testing.T, dst, outside string) (failed []string){
		"the target": func(t *testing.T, dst, outside string) []string {
			try(t, os.RemoveAll(dst))
			return link(t, outside, dst)
		},
		"the state folder": func(t *testing.T, dst, outside string) []string {
			try(t, os.RemoveAll(filepath.Join(dst, stateDir)))
			return link(t, outside, filepath.Join(dst, stateDir))
		},
		"the stage": func(t *testing.T, dst, outside string) []string {
			try(t, os.RemoveAll(filepath.Join(dst, stageDir)))
			return link(t, outside, filepath.Join(dst, stageDir))
		},
		"every shard of the stage": func(t *testing.T, dst, outside string) []string {
			for i := range 256 {
				link(t, outside, filepath.Join(dst, stageDir, fmt.Sprintf("%02x", i)))
			}
			return nil
		},
		"the pages": func(t *testing.T, dst, outside string) []string {
			try(t, os.RemoveAll(filepath.Join(dst, pagesDir)))
			return link(t, outside, filepath.Join(dst, pagesDir))
		},
		"a folder that is not ours": func(t *testing.T, dst, outside string) []string {
			link(t, outside, filepath.Join(dst, "new"))
			return []string{"new", "new/file"}
		},
		"a file that is not ours": func(t *testing.T, dst, outside string) []string {
			link(t, filepath.Join(outside, "victim"), filepath.Join(dst, "new2"))
			return []string{"new2"}
		},
	}
	for name, fn := range plant {
		t.Run(name, func(t *testing.T) {
			p, src, dst := dirs(t, small)
			p.publish(src)
			p.must(dst, nil)
			outside := t.TempDir()
			grow(t, outside, tree{"victim": "precious", "file": "precious too"})
			lay(t, src, with(small, func(tr tree) { tr["new/file"], tr["new2"], tr["a.txt"] = "new", "new2", "edited" }))
			p.publish(src)
			failed := fn(t, dst, outside)
			r, err := p.pull(dst, nil)
			if aside := name == "the stage" || name == "every shard of the stage" || name == "the pages"; aside {
				// The link itself is moved away, and a folder takes its place.
				if err != nil || r.Verdict != Verified {
					t.Errorf("%v, %v", r.Verdict, err)
				}
				sameTree(t, src, dst)
			} else if err == nil && (r.Verdict == Verified || failed == nil) {
				t.Error("verified through a link, or no error")
			}
			for _, f := range failed {
				if r.files[f].Outcome != runs.FileFailed || r.files[f].Cause == nil {
					t.Errorf("%s: %+v", f, r.files[f])
				}
			}
			if d := cmp.Diff(tree{"victim": "precious", "file": "precious too"}, seen(t, outside)); d != "" {
				t.Errorf("something outside was touched:\n%s", d)
			}
		})
	}
}

func link(t *testing.T, to, at string) []string {
	t.Helper()
	if err := os.Symlink(to, at); err != nil {
		t.Fatal(err)
	}
	return nil
}

func TestLinkInTheWayOfWhatWePutThereIsReplaced(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs the right to make symlinks")
	}
	p, src, dst := dirs(t, small)
	p.publish(src)
	p.must(dst, nil)
	outside := t.TempDir()
	grow(t, outside, tree{"victim": "precious", "c.txt": "precious"})
	try(t, os.Remove(filepath.Join(dst, "a.txt")))
	link(t, filepath.Join(outside, "victim"), filepath.Join(dst, "a.txt"))
	try(t, os.RemoveAll(filepath.Join(dst, "b")))
	link(t, outside, filepath.Join(dst, "b"))
	p.must(dst, nil)
	sameTree(t, src, dst)
	if d := cmp.Diff(tree{"victim": "precious", "c.txt": "precious"}, seen(t, outside)); d != "" {
		t.Errorf("something outside was touched:\n%s", d)
	}
}

func TestSiteFileInAFolderThatBecomesAFile(t *testing.T) {
	p, src, dst := dirs(t, before)
	p.publish(src)
	p.must(dst, nil)
	grow(t, dst, tree{"fold/mine": "the site's own"})
	lay(t, src, after)
	p.publish(src)
	r, err := p.pull(dst, nil)
	if err != nil || r.Verdict != Incomplete || r.files["fold"].Outcome != runs.FileFailed {
		t.Fatalf("%v %v %v", r.Verdict, err, r.outcomes())
	}
	if !strings.Contains(fmt.Sprint(r.files["fold"].Cause), "--prune") {
		t.Errorf("no remedy: %v", r.files["fold"].Cause)
	}
	if have := seen(t, dst); have["fold/mine"] != "the site's own" || have["edit"] != before["edit"] {
		t.Error("the site's file is gone, or something was committed")
	}
	p.must(dst, func(o *Options) { o.Prune = true })
	sameTree(t, src, dst)
}
