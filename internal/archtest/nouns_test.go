package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"os"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// nounOf maps the JSON names that belong to one kind of value to the type of their fields.
var nounOf = map[string]string{
	"release":        "ReleaseNumber",
	"parent":         "ReleaseNumber",
	"release_digest": "ReleaseDigest",
	"parent_digest":  "ReleaseDigest",
}

// plainNumbers lists the fields named Number that do not number a release.
var plainNumbers = []string{
	"internal/trust.Subject", "internal/trust.envelope", // any signed object
	"internal/wire.Chain", "internal/wire.Stopped", "internal/wire.Confirmed", "internal/wire.Signed",
	"internal/reports.Effects", "internal/spool.Numbered",
	"cmd/nightferry.signature", "cmd/nightferry.",
}

// TestFieldsNameReleases checks that a release's number, a release's digest and an object's key differ in type and in
// JSON name. One name once stood for a number in some lines and for a digest in others.
func TestFieldsNameReleases(t *testing.T) {
	bad, seen, err := nouns(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	if seen < 20 {
		t.Fatalf("only %d JSON fields of releases were found: the check does not cover the product", seen)
	}
	for _, b := range bad {
		t.Error(b)
	}
}

// nouns checks every struct field of the product; seen counts the fields whose JSON name is in nounOf.
func nouns(fsys fs.FS) (bad []string, seen int, err error) {
	err = fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if base := path.Base(name); name != "." && (strings.HasPrefix(base, ".") || base == "testdata") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, text, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		owner := ""
		ast.Inspect(f, func(n ast.Node) bool {
			switch x := n.(type) {
			case *ast.FuncDecl:
				owner = ""
			case *ast.TypeSpec:
				owner = x.Name.Name
			case *ast.StructType:
				for _, field := range x.Fields.List {
					b, named := wrongNoun(path.Dir(name)+"."+owner, field)
					bad = append(bad, b...)
					if named {
						seen++
					}
				}
			}
			return true
		})
		return nil
	})
	slices.Sort(bad)
	return bad, seen, err
}

// wrongNoun returns the fault of a field's type or JSON name, and whether the name is in nounOf.
func wrongNoun(owner string, f *ast.Field) (bad []string, named bool) {
	typ := types.ExprString(f.Type)
	kind := typ[strings.LastIndexByte(typ, '.')+1:]
	report := func(format string, a ...any) {
		bad = append(bad, fmt.Sprintf("%s: a field of type %s ", owner, typ)+fmt.Sprintf(format, a...))
	}
	json := jsonName(f)
	want, named := nounOf[json]
	if named && kind != want {
		report("has the JSON name %q, which is for %s", json, want)
	}
	if (json == "number" || json == "digest" || json == "key") && (kind == "ReleaseNumber" || kind == "ReleaseDigest") {
		report("has the JSON name %q: use release or release_digest", json)
	}
	if json == "key" && !strings.HasPrefix(owner, "internal/collect.") {
		report("has the JSON name key, which is for objects of the store")
	}
	for _, id := range f.Names {
		switch {
		case id.Name == "Number" && typ == "uint64" && !slices.Contains(plainNumbers, owner):
			report("is called Number: use trust.ReleaseNumber, or list it in plainNumbers if it numbers something else")
		case id.Name == "Release" && (typ == "uint64" || kind == "Digest"):
			report("is called Release: use trust.ReleaseNumber or trust.ReleaseDigest")
		}
	}
	return bad, named
}

func jsonName(f *ast.Field) string {
	if f.Tag == nil {
		return ""
	}
	tag, err := strconv.Unquote(f.Tag.Value)
	if err != nil {
		return ""
	}
	name, _, _ := strings.Cut(reflect.StructTag(tag).Get("json"), ",")
	return name
}

func TestFieldsNameReleasesBite(t *testing.T) {
	for text, want := range map[string]int{
		"A uint64 `json:\"release\"`":                        1,
		"A digest.Digest `json:\"release_digest,omitzero\"`": 1,
		"A trust.ReleaseNumber `json:\"number\"`":            1,
		"A trust.ReleaseDigest `json:\"digest\"`":            1,
		"A string `json:\"key\"`":                            1,
		"Number uint64":                                      1,
		"Release digest.Digest":                              1,
		"Release uint64":                                     1,
		"Number trust.ReleaseNumber `json:\"release\"`":      0,
		"Release trust.ReleaseDigest":                        0,
		"A digest.Digest `json:\"digest\"`":                  0,
	} {
		f, err := parser.ParseExpr("struct{" + text + "}")
		if err != nil {
			t.Fatal(err)
		}
		if bad, _ := wrongNoun("internal/x.T", f.(*ast.StructType).Fields.List[0]); len(bad) != want {
			t.Errorf("%s: %q, want %d", text, bad, want)
		}
	}
}
