package archtest

import (
	"errors"
	"fmt"
	"go/ast"
	"go/build"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// allowedFields lists fields that are only written or only read, with the reason. The key is room.Type.Field.
var allowedFields = map[string]string{
	"bucket.Options.MaxBackoff":        "an option that only tests set",
	"bucket.Options.Stall":             "an option that only tests set",
	"bus.ServerOptions.MaxConnections": "an option that only tests set",
	"service.Config.Password":          "an option that only tests set",
	"spool.Options.MaxBytes":           "an option that only tests set",
	"api.ServerOptions.bodyWithin":     "an option that only tests set",
	"api.ServerOptions.writeWithin":    "an option that only tests set",

	"durable.Op.Data": "observers in tests read it",
	"durable.Op.Kind": "observers in tests read it",
	"durable.Op.Mode": "observers in tests read it",
	"durable.Op.Off":  "observers in tests read it",
	"durable.Op.Size": "observers in tests read it",
	"durable.Op.Time": "observers in tests read it",

	"schedule.Question.Patience": "zero means the 72 hours of docs/windows.md; tests of the forecast choose another",
	"schedule.Coming.Release":    "the planner's, which only its simulation drives so far",

	"manifest.list.Chunks":  "a format carries it, for people and for other readers",
	"manifest.page.Entries": "a format carries it, for people and for other readers",
	"repo.Block.Stored":     "a format carries it, for people and for other readers",
	"repo.Head.Signer":      "a format carries it, for people and for other readers",
	"repo.Memory.Repo":      "a format carries it, for people and for other readers",
	"scan.Header.Made":      "a format carries it, for people and for other readers",
	"scan.Header.Rules":     "a format carries it, for people and for other readers",

	"wire.Hello.Generation": "the message carries it, and the Core does not look at it yet",
	"wire.URLs.ID":          "the message carries it, and the Core does not look at it yet",

	"api.Route.Answer":    "the test that generates openapi.json reads it",
	"api.Route.Query":     "the test that generates openapi.json reads it",
	"api.Route.Summary":   "the test that generates openapi.json reads it",
	"api.parameter.doc":   "the test that generates openapi.json reads it",
	"api.parameter.kind":  "the test that generates openapi.json reads it",
	"core.Made.Encrypted": "for whoever calls the room",
	"core.Made.Release":   "for whoever calls the room",
	"kinds.Entry.Cause":   "for whoever calls the room",
	"ledger.Finding.Path": "for whoever calls the room",
}

// TestFields checks that each field of a struct of the product is both written and read. A field that one side fills in
// but no code reads makes a false promise: a documented key once deleted files because of that. Tests do not count. A
// field with a JSON or YAML name has its other side outside of the program.
func TestFields(t *testing.T) {
	all := uses{}
	for _, system := range []string{"linux", "windows"} {
		if err := all.load("../..", system); err != nil {
			t.Fatal(err)
		}
	}
	if len(all) < 500 {
		t.Fatalf("only %d fields were found: the check does not cover the product", len(all))
	}
	for _, bad := range all.bad(allowedFields) {
		t.Error(bad)
	}
}

// use is how a field is used.
type use struct{ read, written bool }

// uses maps room.Type.Field to the uses of that field.
type uses map[string]*use

func (u uses) bad(allowed map[string]string) (out []string) {
	for name, f := range u {
		why := ""
		switch {
		case f.read && f.written:
		case f.written:
			why = "is written and never read"
		case f.read:
			why = "is read and never written"
		default:
			why = "is never used"
		}
		_, ok := allowed[name]
		switch {
		case why != "" && !ok:
			out = append(out, name+" "+why+": use it, or remove it")
		case why == "" && ok:
			out = append(out, name+" is read and written by now: take it out of allowedFields")
		}
	}
	for name := range allowed {
		if u[name] == nil {
			out = append(out, name+" is allowed, and there is no such field")
		}
	}
	slices.Sort(out)
	return out
}

// checker type-checks the module's packages from source, each once. Packages of other modules are empty, so expressions
// of their types have no type; the rest of such an expression is still checked.
type checker struct {
	root  string
	ctx   build.Context
	fset  *token.FileSet
	std   types.Importer
	made  map[string]*types.Package
	uses  uses
	named map[*types.Var]string // field → its name in uses
}

func (u uses) load(root, system string) error {
	was := build.Default
	defer func() { build.Default = was }()
	goroot, err := exec.Command("go", "env", "GOROOT").Output() // a test built with -trimpath has no GOROOT
	if err != nil {
		return fmt.Errorf("go env GOROOT: %w", err)
	}
	build.Default.GOROOT = strings.TrimSpace(string(goroot))
	build.Default.GOOS, build.Default.CgoEnabled = system, false // read by the source importer
	c := &checker{root: root, ctx: build.Default, fset: token.NewFileSet(), made: map[string]*types.Package{}, uses: u, named: map[*types.Var]string{}}
	c.std = importer.ForCompiler(c.fset, "source", nil)
	for _, r := range rooms {
		if r.floor == testRooms || r.dir == "cmd/demo" || r.dir == "bench" || r.dir == "internal/consoletest" {
			continue
		}
		if _, err := c.Import(module + "/" + r.dir); err != nil {
			return fmt.Errorf("%s: %w", r.dir, err)
		}
		if err := u.readTemplates(root, r.dir); err != nil {
			return err
		}
	}
	return nil
}

var templateField = regexp.MustCompile(`[.]([A-Z][A-Za-z0-9]*)`)

// readTemplates counts the fields of a room that its HTML templates name as read.
func (u uses) readTemplates(root, dir string) error {
	files, err := filepath.Glob(filepath.Join(root, dir, "html", "*.html"))
	if err != nil {
		return err
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		for _, m := range templateField.FindAllSubmatch(text, -1) {
			for name, x := range u {
				if strings.HasPrefix(name, strings.TrimPrefix(dir, "internal/")+".") && strings.HasSuffix(name, "."+string(m[1])) {
					x.read = true
				}
			}
		}
	}
	return nil
}

// Import makes checker a types.Importer.
func (c *checker) Import(path string) (*types.Package, error) {
	if p := c.made[path]; p != nil {
		return p, nil
	}
	dir, ours := strings.CutPrefix(path, module+"/")
	if !ours {
		if first, _, _ := strings.Cut(path, "/"); !strings.Contains(first, ".") {
			return c.std.Import(path)
		}
		p := types.NewPackage(path, path[strings.LastIndexByte(path, '/')+1:])
		p.MarkComplete()
		c.made[path] = p
		return p, nil
	}
	files, err := c.parse(dir)
	if err != nil {
		return nil, err
	}
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Defs: map[*ast.Ident]types.Object{}, Uses: map[*ast.Ident]types.Object{}, Selections: map[*ast.SelectorExpr]*types.Selection{}}
	conf := types.Config{Importer: c, Error: func(error) {}}
	p, _ := conf.Check(path, c.fset, files, info) // errors are expected, because other modules are empty
	c.made[path] = p
	for _, f := range files {
		c.declare(dir, f, info)
	}
	for _, f := range files {
		c.visit(f, info)
	}
	return p, nil
}

func (c *checker) parse(dir string) (files []*ast.File, err error) {
	list, err := os.ReadDir(filepath.Join(c.root, dir))
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		name := e.Name()
		if filepath.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") {
			continue
		}
		if ok, err := c.ctx.MatchFile(filepath.Join(c.root, dir), name); err != nil || !ok {
			continue
		}
		f, err := parser.ParseFile(c.fset, filepath.Join(c.root, dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	if len(files) == 0 {
		return nil, errors.New("it has no Go file")
	}
	return files, nil
}

// declare records the names of the fields of struct types that a file declares.
func (c *checker) declare(dir string, f *ast.File, info *types.Info) {
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		body, ok := spec.Type.(*ast.StructType)
		if !ok {
			return true
		}
		for _, field := range body.Fields.List {
			idents := field.Names
			if len(idents) == 0 { // embedded
				idents = []*ast.Ident{lastIdent(field.Type)}
			}
			for _, id := range idents {
				v, ok := info.Defs[id].(*types.Var)
				if !ok { // the identifier of an embedded field refers to a type
					v = embeddedVar(info.Defs[spec.Name], id)
				}
				if v == nil || id.Name == "_" {
					continue
				}
				name := strings.TrimPrefix(dir, "internal/") + "." + spec.Name.Name + "." + id.Name
				c.named[v] = name
				if c.uses[name] == nil {
					c.uses[name] = &use{}
				}
				if named := outside(field.Tag); named || v.Embedded() {
					c.uses[name].read, c.uses[name].written = true, true
				}
			}
		}
		return true
	})
}

func lastIdent(e ast.Expr) *ast.Ident {
	switch e := e.(type) {
	case *ast.Ident:
		return e
	case *ast.StarExpr:
		return lastIdent(e.X)
	case *ast.SelectorExpr:
		return e.Sel
	case *ast.IndexExpr:
		return lastIdent(e.X)
	}
	return ast.NewIdent("_")
}

func embeddedVar(of types.Object, id *ast.Ident) *types.Var {
	if of == nil {
		return nil
	}
	s, ok := of.Type().Underlying().(*types.Struct)
	if !ok {
		return nil
	}
	for i := range s.NumFields() {
		if f := s.Field(i); f.Embedded() && f.Name() == id.Name {
			return f
		}
	}
	return nil
}

// outside reports whether the field has a name in JSON, YAML or a URL's query, so that a person or another program is its other side.
func outside(tag *ast.BasicLit) bool {
	if tag == nil {
		return false
	}
	t := reflect.StructTag(strings.Trim(tag.Value, "`"))
	return t.Get("yaml") != "" || t.Get("query") != "" || t.Get("path") != "" || t.Get("json") != "" && t.Get("json") != "-"
}

// visit records the uses of fields in a file.
func (c *checker) visit(f *ast.File, info *types.Info) {
	onlyWritten := map[*ast.SelectorExpr]bool{}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			for _, l := range n.Lhs {
				if s, ok := l.(*ast.SelectorExpr); ok {
					onlyWritten[s] = true
				}
			}
		case *ast.IncDecStmt:
			if s, ok := n.X.(*ast.SelectorExpr); ok {
				onlyWritten[s] = true
			}
		case *ast.UnaryExpr: // taking its address counts as a write
			if s, ok := n.X.(*ast.SelectorExpr); ok && n.Op == token.AND && info.Selections[s] != nil {
				if v, ok := info.Selections[s].Obj().(*types.Var); ok {
					c.note(v, use{written: true})
				}
			}
		case *ast.SelectorExpr:
			c.selected(info.Selections[n], onlyWritten[n])
		case *ast.CompositeLit:
			c.literal(n, info)
		case *ast.BinaryExpr: // a comparison reads every field
			if n.Op == token.EQL || n.Op == token.NEQ {
				c.whole(info.TypeOf(n.X), use{read: true})
			}
		case *ast.MapType:
			c.whole(info.TypeOf(n.Key), use{read: true})
		case *ast.CallExpr: // a conversion reads one type's fields and writes the other's
			if tv, ok := info.Types[n.Fun]; ok && tv.IsType() && len(n.Args) == 1 {
				c.whole(tv.Type, use{written: true})
				c.whole(info.TypeOf(n.Args[0]), use{read: true})
			}
		}
		return true
	})
}

func (c *checker) note(v *types.Var, how use) {
	if name, ok := c.named[v.Origin()]; ok {
		c.uses[name].read = c.uses[name].read || how.read
		c.uses[name].written = c.uses[name].written || how.written
	}
}

func (c *checker) selected(s *types.Selection, written bool) {
	if s == nil || s.Kind() != types.FieldVal {
		return
	}
	v, ok := s.Obj().(*types.Var)
	if !ok {
		return
	}
	if written {
		c.note(v, use{written: true})
		return
	}
	// Its address may be taken, or its content changed, without an assignment to it.
	basic, ok := v.Type().Underlying().(*types.Basic)
	c.note(v, use{read: true, written: !ok || basic.Kind() == types.Invalid})
}

func (c *checker) literal(n *ast.CompositeLit, info *types.Info) {
	t := info.TypeOf(n)
	if t == nil {
		return
	}
	s, ok := t.Underlying().(*types.Struct)
	if !ok {
		return
	}
	for i, e := range n.Elts {
		kv, keyed := e.(*ast.KeyValueExpr)
		if !keyed {
			if i < s.NumFields() {
				c.note(s.Field(i), use{written: true})
			}
			continue
		}
		if id, ok := kv.Key.(*ast.Ident); ok {
			if v, ok := info.Uses[id].(*types.Var); ok {
				c.note(v, use{written: true})
			}
		}
	}
}

// whole records a use of every field of a struct, including nested structs.
func (c *checker) whole(t types.Type, how use) {
	if t == nil {
		return
	}
	s, ok := t.Underlying().(*types.Struct)
	if !ok {
		return
	}
	for i := range s.NumFields() {
		c.note(s.Field(i), how)
		c.whole(s.Field(i).Type(), how)
	}
}

// TestFieldsBite checks that a field that is never read, never written or never used is reported.
func TestFieldsBite(t *testing.T) {
	u := uses{"a.T.Sent": {written: true}, "a.T.Asked": {read: true}, "a.T.Dead": {}, "a.T.Good": {true, true}, "a.T.Kept": {written: true}, "a.T.Used": {true, true}}
	got := u.bad(map[string]string{"a.T.Kept": "for later", "a.T.Used": "no longer", "a.T.Gone": "no longer"})
	want := []string{"a.T.Asked is read and never written: use it, or remove it", "a.T.Dead is never used: use it, or remove it", "a.T.Gone is allowed, and there is no such field",
		"a.T.Sent is written and never read: use it, or remove it", "a.T.Used is read and written by now: take it out of allowedFields"}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
}
