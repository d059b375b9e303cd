package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"

	"nightferry/internal/s3test"
	"nightferry/internal/testbed"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"nightferry": main})
}

// TestScripts runs the command line against a directory store. Each script
// says at its top what it settles.
func TestScripts(t *testing.T) {
	runScripts(t, "testdata", func(env *testscript.Env) string {
		return testbed.FileURL(filepath.Join(env.WorkDir, "store"))
	}, nil)
}

// TestS3Scripts runs some of it against a real S3 server.
func TestS3Scripts(t *testing.T) {
	b := s3test.S3(t)
	runScripts(t, filepath.Join("testdata", "s3"), func(env *testscript.Env) string {
		return b.URL(filepath.Base(env.WorkDir))
	}, b.Env())
}

func runScripts(t *testing.T, dir string, store func(*testscript.Env) string, vars []string) {
	t.Helper()
	dir, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Vars = append(env.Vars, vars...)
			env.Setenv("STORE", store(env))
			env.Setenv("NIGHTFERRY_STATE", filepath.Join(env.WorkDir, "state"))
			return os.MkdirAll(filepath.Join(env.WorkDir, "src"), 0o755)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exitsWith, "jsonlines": jsonLines, "flip": flip, "nowhere": nowhere, "fill": fill, "savedas": savedAs, "keep": keep, "glob": globbed, "sametree": sameTree,
		},
	})
}

// exitsWith runs nightferry and checks its exit code: exits 3 verify site.
func exitsWith(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE args...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec("nightferry", args[1:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// jsonLines checks that the last stdout is lines of JSON, that each has an
// event, and that the last one's event is the argument.
func jsonLines(ts *testscript.TestScript, neg bool, args []string) {
	lines := strings.Split(strings.TrimSuffix(ts.ReadFile("stdout"), "\n"), "\n")
	var last struct{ Event, Time string }
	for _, l := range lines {
		last.Event, last.Time = "", ""
		if err := json.Unmarshal([]byte(l), &last); err != nil {
			ts.Fatalf("%q: %v", l, err)
		}
		if last.Event == "" || last.Time == "" {
			ts.Fatalf("%q has no event or no time", l)
		}
	}
	if neg || len(args) != 1 || last.Event != args[0] {
		ts.Fatalf("the last event is %q, want %q", last.Event, args)
	}
}

// flip changes one bit of a file: flip FILE OFFSET, from its end if negative.
func flip(ts *testscript.TestScript, neg bool, args []string) {
	path := only(ts, args[0])
	at, err := strconv.Atoi(args[1])
	ts.Check(err)
	b, err := os.ReadFile(path)
	ts.Check(err)
	if at < 0 {
		at += len(b)
	}
	b[at] ^= 1
	ts.Check(os.WriteFile(path, b, 0o644))
}

// only returns the one file that a pattern names.
func only(ts *testscript.TestScript, pattern string) string {
	found, err := filepath.Glob(ts.MkAbs(pattern))
	ts.Check(err)
	if len(found) != 1 {
		ts.Fatalf("%s names %d files", pattern, len(found))
	}
	return found[0]
}

// nowhere checks that a text is in no file of a folder, nor in a name.
func nowhere(ts *testscript.TestScript, neg bool, args []string) {
	files := 0
	err := filepath.WalkDir(ts.MkAbs(args[0]), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		found := strings.Contains(d.Name(), args[1])
		if d.Type().IsRegular() {
			files++
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			found = found || bytes.Contains(b, []byte(args[1]))
		}
		if found && !neg {
			ts.Fatalf("%s tells %q", path, args[1])
		}
		if found && neg {
			return errFound
		}
		return nil
	})
	if neg && errors.Is(err, errFound) {
		return
	}
	ts.Check(err)
	if neg || files == 0 {
		ts.Fatalf("%q is in none of %d files", args[1], files)
	}
}

var errFound = errors.New("found")

// fill makes files: fill DIR NUMBER BYTES.
func fill(ts *testscript.TestScript, neg bool, args []string) {
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	size, err := strconv.Atoi(args[2])
	ts.Check(err)
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	seed := uint64(size)
	for i := range n {
		b := make([]byte, size)
		for j := range b {
			seed = seed*6364136223846793005 + 1442695040888963407
			b[j] = byte(seed >> 33)
		}
		ts.Check(os.WriteFile(filepath.Join(dir, "file"+strconv.Itoa(i)), b, 0o644))
	}
}

// savedAs puts the last stdout's first match of a pattern into a variable:
// savedas NAME PREFIX takes the word that follows PREFIX.
func savedAs(ts *testscript.TestScript, neg bool, args []string) {
	_, rest, ok := strings.Cut(ts.ReadFile("stdout"), args[1])
	if !ok {
		ts.Fatalf("%q is not in stdout", args[1])
	}
	ts.Setenv(args[0], strings.Trim(strings.Fields(rest)[0], `",:`))
}

// keep copies a file or folder: keep FROM TO, replacing TO.
func keep(ts *testscript.TestScript, neg bool, args []string) {
	from, to := ts.MkAbs(args[0]), ts.MkAbs(args[1])
	info, err := os.Stat(from)
	ts.Check(err)
	ts.Check(os.RemoveAll(to))
	if info.IsDir() {
		ts.Check(os.CopyFS(to, os.DirFS(from)))
		return
	}
	b, err := os.ReadFile(from)
	ts.Check(err)
	ts.Check(os.WriteFile(to, b, 0o644))
}

// globbed puts the one path that a pattern names into a variable.
func globbed(ts *testscript.TestScript, neg bool, args []string) {
	ts.Setenv(args[0], only(ts, args[1]))
}

// sameTree checks that two folders hold the same files: nothing was cached,
// staged or changed meanwhile.
func sameTree(ts *testscript.TestScript, neg bool, args []string) {
	var trees [2]map[string]string
	for i := range trees {
		trees[i] = map[string]string{}
		root := os.DirFS(ts.MkAbs(args[i]))
		ts.Check(fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := fs.ReadFile(root, path)
			trees[i][path] = string(b)
			return err
		}))
	}
	if d := cmp.Diff(trees[0], trees[1]); d != "" || len(trees[0]) < 3 {
		ts.Fatalf("the folders differ:\n%s", d)
	}
}
