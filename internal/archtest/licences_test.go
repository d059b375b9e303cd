package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write THIRD_PARTY.md anew")

// licences are those allowed for dependencies of an MIT-licensed program, with words that occur only in their texts. If
// two start alike, the one with more words comes first.
var licences = []struct {
	name  string
	words []string
}{
	{"Apache-2.0", []string{"Apache License", "Version 2.0, January 2004"}},
	{"MPL-2.0", []string{"Mozilla Public License", "2.0"}},
	{"BSD-3-Clause", []string{"Redistribution and use in source and binary forms", "Neither the name"}},
	{"BSD-3-Clause", []string{"Redistribution and use in source and binary forms", "may not be used to endorse"}},
	{"BSD-2-Clause", []string{"Redistribution and use in source and binary forms"}},
	{"ISC", []string{"Permission to use, copy, modify, and/or distribute this software for any purpose"}},
	{"ISC", []string{"Permission to use, copy, modify, and distribute this software for any purpose"}},
	{"MIT", []string{"Permission is hereby granted, free of charge, to any person obtaining a copy"}},
	{"CC0-1.0", []string{"CC0 1.0 Universal"}},
	{"Unlicense", []string{"This is free and unencumbered software released into the public domain"}},
}

// TestLicences lists every module that the programs and the tests are built from, on Linux and on Windows. It fails if
// a licence is not on the list, or if THIRD_PARTY.md differs.
func TestLicences(t *testing.T) {
	shipped := modules(t, "../..", false, "./cmd/nightferry")
	all := modules(t, "../..", true, "./...")
	maps.Copy(all, modules(t, "../../cmd/s3gateway", true, "./..."))
	var text strings.Builder
	text.WriteString("# Third-party modules\n\nWritten by `go test ./internal/archtest -run Licences -update`; the test fails when it is out of date.\n" +
		"\"program\": linked into nightferry. \"tests\": only the tests, the demo or the benchmark use it.\n\n" +
		"| module | licence | used by |\n| --- | --- | --- |\n")
	for _, path := range slices.Sorted(maps.Keys(all)) {
		name, err := licenceOf(all[path])
		if err != nil {
			t.Errorf("licence of %s: %v", path, err)
			continue
		}
		use := "tests"
		if _, ok := shipped[path]; ok {
			use = "program"
		}
		fmt.Fprintf(&text, "| %s | %s | %s |\n", path, name, use)
	}
	if *update && !t.Failed() {
		if err := os.WriteFile("../../THIRD_PARTY.md", []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile("../../THIRD_PARTY.md")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(text.String(), string(have)); diff != "" {
		t.Errorf("THIRD_PARTY.md is out of date; run: go test ./internal/archtest -run Licences -update\n%s", diff)
	}
}

// modules maps the path of each module that pattern's packages need to its folder. dir is the folder of the module that
// has the packages.
func modules(t *testing.T, dir string, tests bool, pattern string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, goos := range []string{"linux", "windows"} {
		args := []string{"list", "-deps", "-json=Module"}
		if tests {
			args = append(args, "-test")
		}
		cmd := exec.CommandContext(t.Context(), "go", append(args, pattern)...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOOS="+goos, "CGO_ENABLED=0")
		var complaint bytes.Buffer
		cmd.Stderr = &complaint
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("list the modules of %s: %v\n%s", pattern, err, complaint.String())
		}
		for d := json.NewDecoder(bytes.NewReader(out)); ; {
			var p struct{ Module *struct{ Path, Dir string } }
			if err := d.Decode(&p); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("read what go list says of %s: %v", pattern, err)
			}
			if p.Module != nil && p.Module.Path != module && !strings.HasPrefix(p.Module.Path, module+"/") {
				found[p.Module.Path] = p.Module.Dir
			}
		}
	}
	return found
}

// licenceOf returns the licence of the module in dir.
func licenceOf(dir string) (string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return "", err
	}
	for _, f := range files {
		base := strings.ToUpper(filepath.Base(f))
		if !strings.HasPrefix(base, "LICEN") && !strings.HasPrefix(base, "COPYING") {
			continue
		}
		text, err := os.ReadFile(f)
		if err != nil {
			return "", err
		}
		if name := classify(string(text)); name != "" {
			return name, nil
		}
		return "", fmt.Errorf("%s is not a licence on the list in licences_test.go", f)
	}
	return "", fmt.Errorf("no licence file in %s", dir)
}

// classify returns the licence at the start of a text: some modules append the licences of code that they copied.
func classify(text string) string {
	// Texts differ in their line breaks.
	text = strings.ToLower(strings.Join(strings.Fields(text), " "))
	name, first := "", len(text)
	for _, l := range licences {
		if slices.ContainsFunc(l.words, func(w string) bool { return !strings.Contains(text, strings.ToLower(w)) }) {
			continue
		}
		if at := strings.Index(text, strings.ToLower(l.words[0])); at < first {
			name, first = l.name, at
		}
	}
	return name
}

func TestClassifyRefusesCopyleft(t *testing.T) {
	for _, text := range []string{
		"GNU AFFERO GENERAL PUBLIC LICENSE\nVersion 3, 19 November 2007",
		"GNU GENERAL PUBLIC LICENSE\nVersion 2, June 1991", "all rights reserved", "",
	} {
		if got := classify(text); got != "" {
			t.Errorf("classify(%q) = %q, want refusal", text, got)
		}
	}
}
