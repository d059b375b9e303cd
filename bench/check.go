package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
)

// sums maps slash-separated paths to the hex SHA-256 of the files. bench computes it itself, without the tools.
type sums map[string]string

// sumTree reads every regular file below dir.
func sumTree(ctx context.Context, dir string) (sums, error) {
	var names []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return nil
		}
		if !d.Type().IsRegular() {
			return fmt.Errorf("%s is no regular file", p)
		}
		names = append(names, p)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	digests := make([]string, len(names))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(2)
	for i, p := range names {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			f, err := os.Open(p)
			if err != nil {
				return err
			}
			defer f.Close()
			h := sha256.New()
			if _, err := io.Copy(h, f); err != nil {
				return fmt.Errorf("read %s: %w", p, err)
			}
			digests[i] = hex.EncodeToString(h.Sum(nil))
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("hash %s: %w", dir, err)
	}
	out := make(sums, len(names))
	for i, p := range names {
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return nil, err
		}
		out[filepath.ToSlash(rel)] = digests[i]
	}
	return out, nil
}

// verdict is the difference between a tool's result and the source.
type verdict struct {
	Files                 int
	Missing, Stale, Extra int    // Stale: present, but with other bytes than in the source
	Example               string // one path that differs
}

func (v verdict) identical() bool { return v.Missing+v.Stale+v.Extra == 0 }

func (v verdict) String() string {
	if v.identical() {
		return "identical"
	}
	var s []string
	for _, c := range []struct {
		n    int
		what string
	}{{v.Stale, "stale"}, {v.Missing, "missing"}, {v.Extra, "extra"}} {
		if c.n > 0 {
			s = append(s, fmt.Sprintf("%d %s", c.n, c.what))
		}
	}
	return strings.Join(s, ", ")
}

// compareSums compares a tool's result with the source.
func compareSums(want, got sums) verdict {
	v := verdict{Files: len(want)}
	for _, p := range slices.Sorted(maps.Keys(want)) {
		switch d, ok := got[p]; {
		case !ok:
			v.Missing++
		case d != want[p]:
			v.Stale++
		default:
			continue
		}
		v.Example = p
	}
	for p := range got {
		if _, ok := want[p]; !ok {
			v.Extra++
			if v.Example == "" {
				v.Example = p
			}
		}
	}
	return v
}

func saveJSON(path string, v any) error {
	text, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

func loadJSON(path string, v any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}
