package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

const module = "nightferry"

// source holds the data of one Go file that the rules need. Files are parsed one by one and not loaded as packages, so
// that files for every operating system and build tag are seen on every machine.
type source struct {
	file    string
	dir     string
	test    bool
	doc     bool // carries a package comment
	init    bool // declares func init
	imports []string
}

// load reads every Go file of the tree, except in hidden folders and testdata.
func load(fsys fs.FS) ([]source, error) {
	var all []source
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := path.Base(name)
		if d.IsDir() {
			if name != "." && (strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") || base == "testdata") {
				return fs.SkipDir
			}
			return nil
		}
		if path.Ext(name) != ".go" {
			return nil
		}
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		s, err := parse(name, text)
		if err != nil {
			return err
		}
		all = append(all, s)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the module's sources: %w", err)
	}
	return all, nil
}

func parse(name string, text []byte) (source, error) {
	f, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return source{}, fmt.Errorf("parse %s: %w", name, err)
	}
	s := source{file: name, dir: path.Dir(name), test: strings.HasSuffix(name, "_test.go"), doc: f.Doc != nil}
	for _, i := range f.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			return source{}, fmt.Errorf("parse %s: import %s: %w", name, i.Path.Value, err)
		}
		s.imports = append(s.imports, p)
	}
	for _, d := range f.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
			s.init = true
		}
	}
	return s, nil
}
