package main

import (
	"fmt"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"nightferry/internal/durable"
	"nightferry/internal/scan"
	"nightferry/internal/text"
)

// maxPatterns bounds a file of patterns, in bytes.
const maxPatterns = 16 << 20

// patternFlags choose what a push takes.
type patternFlags struct {
	include, exclude []string
	file             string
}

func (f *patternFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.include, "include", nil, "take only what matches `GLOB`, such as 'drivers/**' or '*.msi'; may be repeated")
	cmd.Flags().StringArrayVar(&f.exclude, "exclude", nil, "leave out what matches `GLOB`, such as '*.tmp' or 'cache/'; may be repeated, and wins over --include")
	cmd.Flags().StringVar(&f.file, "patterns-from", "", "read patterns from `FILE`: lines of '+ GLOB' and '- GLOB', # begins a comment")
}

// patterns returns nil where none are given.
func (f *patternFlags) patterns() (*scan.Patterns, error) {
	include, exclude := f.include, f.exclude
	if f.file != "" {
		b, err := text.ReadFile(durable.ReadTrusted, f.file, maxPatterns)
		if err != nil {
			return nil, err
		}
		for i, line := range strings.Split(string(b), "\n") {
			line = strings.TrimSpace(line)
			if line == "" || line[0] == '#' {
				continue
			}
			sign, glob, ok := strings.Cut(line, " ")
			glob = strings.TrimSpace(glob)
			switch {
			case ok && sign == "+":
				include = append(include, glob)
			case ok && sign == "-":
				exclude = append(exclude, glob)
			default:
				return nil, usage("push", "%s, line %d: %q: want '+ GLOB' or '- GLOB'", shown(f.file), i+1, shown(line))
			}
		}
	}
	if len(include)+len(exclude) == 0 {
		return nil, nil
	}
	p, err := scan.ParsePatterns(include, exclude)
	if err != nil {
		return nil, &usageError{cmd: "nightferry push", err: err}
	}
	return foldHere(p), nil
}

// foldHere makes patterns ignore case where file names do.
func foldHere(p *scan.Patterns) *scan.Patterns {
	if runtime.GOOS == "windows" {
		return p.FoldCase()
	}
	return p
}

// parseIgnore compiles the patterns of --ignore.
func parseIgnore(globs []string) (*scan.Patterns, error) {
	p, err := scan.ParsePatterns(nil, globs)
	if err != nil {
		return nil, &usageError{cmd: "nightferry", err: fmt.Errorf("--ignore: %w", err)}
	}
	return foldHere(p), nil
}
