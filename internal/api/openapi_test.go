package api

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"nightferry/internal/clock"
)

var update = flag.Bool("update", false, "write openapi.json")

// TestOpenAPI generates the description of the routes from their types, and the texts from the comments of the
// code, and compares it with the file that the Core serves.
func TestOpenAPI(t *testing.T) {
	g := &generator{schemas: object{}, notes: notes(t)}
	doc := g.document(Routes(Backend{}))
	want, err := json.MarshalIndent(doc, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, '\n')
	if *update {
		if err := os.WriteFile("openapi.json", want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(want, description) {
		t.Error("openapi.json is not current: go test ./internal/api -run TestOpenAPI -update")
	}
	for name, s := range g.schemas {
		if s.(object)["description"] == nil {
			t.Errorf("type %s has no doc comment", name)
		}
	}
}

// object is a JSON object; encoding/json sorts its names, so that the document is deterministic.
type object map[string]any

type generator struct {
	schemas object
	notes   map[string]string // comments, by Type and Type.Field
	body    bool              // of a request, no field is required
}

func (g *generator) document(routes []Route) object {
	paths := object{}
	for _, r := range routes {
		item, ok := paths[r.Path].(object)
		if !ok {
			item = object{}
			paths[r.Path] = item
		}
		item[strings.ToLower(r.Method)] = g.operation(&r)
	}
	g.schema(reflect.TypeFor[Error]())
	return object{
		"openapi": "3.1.0",
		"info": object{"title": "nightferry Core", "version": "1",
			"description": "The contract between a Core and its clients. docs/api.md shows how to use it."},
		"paths":      paths,
		"components": object{"schemas": g.schemas},
	}
}

func (g *generator) operation(r *Route) object {
	answer := g.schema(r.Answer)
	switch r.Media {
	case mediaEvents:
		answer = object{"description": "Server-sent events: id is for Last-Event-ID, event is the kind of the event, or missed, and data is this object. A comment shows that the Core is alive.",
			"oneOf": []object{answer, g.schema(reflect.TypeFor[Missed]())}}
	case mediaLines:
		answer = object{"description": "One object a line: lines with line, then one with end or error. A stream without either was cut off.", "type": "object",
			"properties": object{"line": answer, "end": object{"type": "boolean"}, "error": ref("Error")}}
	}
	status := "200"
	if r.Method == http.MethodPost && (r.Answer == reflect.TypeFor[Job]() || r.Answer == reflect.TypeFor[*Job]()) {
		status = "202" // and the header Location names the job
	}
	op := object{"summary": r.Summary, "operationId": operationID(r), "responses": object{
		status:    object{"description": "done", "content": object{r.Media: object{"schema": answer}}},
		"default": object{"description": "an error", "content": object{"application/json": object{"schema": ref("Error")}}},
	}}
	var list []object
	for _, p := range parametersOf(r.Query) {
		schema := g.schema(p.kind)
		if p.min != 0 {
			schema["minimum"] = p.min
		}
		if p.max != 0 {
			schema["maximum"] = p.max
		}
		x := object{"name": p.name, "in": "query", "description": p.doc, "schema": schema}
		if p.path {
			x["in"], x["required"] = "path", true
		}
		list = append(list, x)
	}
	if r.Method == http.MethodPost && r.Media == mediaJSON {
		list = append(list, object{"name": "Idempotency-Key", "in": "header", "schema": object{"type": "string", "minLength": 1, "maxLength": 200},
			"description": "A random text. A request that is repeated with the same key within 24 hours has its effect once, and gets the first answer again, with the header Idempotent-Replayed. The key of another request is refused (422)."})
	}
	if list != nil {
		op["parameters"] = list
	}
	if r.Body != nil {
		g.body = true
		defer func() { g.body = false }()
		op["requestBody"] = object{"required": true, "content": object{"application/json": object{"schema": g.schema(r.Body)}}}
	}
	return op
}

// operationID is the route as one word: postSitesRevoke.
func operationID(r *Route) string {
	id := strings.ToLower(r.Method)
	for part := range strings.FieldsFuncSeq(strings.TrimPrefix(r.Path, "/v1"), func(c rune) bool { return strings.ContainsRune("/{}._", c) }) {
		id += strings.ToUpper(part[:1]) + part[1:]
	}
	return id
}

func ref(name string) object { return object{"$ref": "#/components/schemas/" + name} }

// schema describes a type; a struct becomes a component.
func (g *generator) schema(t reflect.Type) object {
	switch t {
	case reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case reflect.TypeFor[clock.Seconds]():
		return object{"type": "number"}
	case reflect.TypeFor[json.RawMessage]():
		return object{"type": "object"}
	case reflect.TypeFor[[]byte]():
		return object{"type": "string", "contentEncoding": "base64"}
	}
	if _, ok := t.MethodByName("MarshalText"); ok {
		return object{"type": "string"}
	}
	switch t.Kind() {
	case reflect.String:
		return object{"type": "string"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int, reflect.Int64:
		return object{"type": "integer"}
	case reflect.Uint64:
		return object{"type": "integer", "minimum": 0}
	case reflect.Float64:
		return object{"type": "number"}
	case reflect.Pointer:
		return g.schema(t.Elem())
	case reflect.Slice:
		return object{"type": "array", "items": g.schema(t.Elem())}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": g.schema(t.Elem())}
	case reflect.Struct:
		return g.component(t)
	}
	panic(fmt.Sprintf("the contract has no form for %s", t))
}

func (g *generator) component(t reflect.Type) object {
	if g.schemas[t.Name()] == nil {
		s := object{"type": "object"}
		g.schemas[t.Name()] = s // first: a type may hold itself
		properties, required := object{}, []string{}
		g.fields(t, properties, &required)
		s["properties"] = properties
		if len(required) > 0 {
			slices.Sort(required)
			s["required"] = required
		}
		if note := g.notes[t.Name()]; note != "" {
			s["description"] = note
		}
	}
	return ref(t.Name())
}

func (g *generator) fields(t reflect.Type, properties object, required *[]string) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous:
			g.fields(f.Type, properties, required)
			continue
		case !f.IsExported():
			continue
		case name == "":
			panic(fmt.Sprintf("%s.%s has no JSON name", t, f.Name))
		}
		s := g.schema(f.Type)
		if note := g.notes[t.Name()+"."+f.Name]; note != "" {
			s["description"] = note
		}
		properties[name] = s
		if options == "" && !g.body {
			*required = append(*required, name)
		}
	}
}

// notes reads the comments of the contract's types.
func notes(t *testing.T) map[string]string {
	out := map[string]string{}
	for _, file := range []string{"api.go", "views.go", "fleetviews.go", "orderviews.go", "adminviews.go", "../runs/runs.go"} {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			decl, ok := d.(*ast.GenDecl)
			if !ok || decl.Tok != token.TYPE {
				continue
			}
			for _, s := range decl.Specs {
				spec := s.(*ast.TypeSpec)
				out[spec.Name.Name] = oneLine(decl.Doc)
				structure, ok := spec.Type.(*ast.StructType)
				if !ok {
					continue
				}
				for _, field := range structure.Fields.List {
					for _, name := range field.Names {
						if out[spec.Name.Name+"."+name.Name] = oneLine(field.Comment); field.Comment == nil {
							out[spec.Name.Name+"."+name.Name] = oneLine(field.Doc)
						}
					}
				}
			}
		}
	}
	return out
}

func oneLine(c *ast.CommentGroup) string { return strings.Join(strings.Fields(c.Text()), " ") }
