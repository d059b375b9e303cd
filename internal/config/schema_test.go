package config

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

const schemaFile = "../../schema/nightferry.schema.json"

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// goKeys lists the paths of keys that the program reads, with NAME for a
// name.
func goKeys(typ reflect.Type, path string) []string {
	switch typ.Kind() {
	case reflect.Pointer, reflect.Slice:
		return goKeys(typ.Elem(), path)
	case reflect.Map:
		return append([]string{joinKey(path, "NAME")}, goKeys(typ.Elem(), joinKey(path, "NAME"))...)
	case reflect.Struct:
		var out []string
		for i := range typ.NumField() {
			f := typ.Field(i)
			if f.Anonymous {
				out = append(out, goKeys(f.Type, path)...)
				continue
			}
			sub := joinKey(path, f.Tag.Get("yaml"))
			out = append(append(out, sub), goKeys(f.Type, sub)...)
		}
		return out
	}
	return nil
}

// schemaKeys lists the paths of keys in the schema. It fails if an object
// allows unknown keys.
func schemaKeys(t *testing.T, root, node map[string]any, path string) []string {
	if ref, ok := node["$ref"].(string); ok {
		node = root["$defs"].(map[string]any)[strings.TrimPrefix(ref, "#/$defs/")].(map[string]any)
	}
	var out []string
	for _, alt := range list(node["anyOf"]) {
		out = append(out, schemaKeys(t, root, alt.(map[string]any), path)...)
	}
	if items, ok := node["items"].(map[string]any); ok {
		return append(out, schemaKeys(t, root, items, path)...)
	}
	typ := node["type"]
	if typ != "object" && !slices.Contains(list(typ), any("object")) {
		return out
	}
	switch more := node["additionalProperties"].(type) {
	case map[string]any:
		out = append(append(out, joinKey(path, "NAME")), schemaKeys(t, root, more, joinKey(path, "NAME"))...)
	case bool:
		if more {
			t.Errorf("the schema lets unknown keys through at %q", path)
		}
	default:
		t.Errorf("the schema lets unknown keys through at %q", path)
	}
	props, _ := node["properties"].(map[string]any)
	for key, p := range props {
		sub := joinKey(path, key)
		out = append(append(out, sub), schemaKeys(t, root, p.(map[string]any), sub)...)
	}
	return out
}

func list(v any) []any { l, _ := v.([]any); return l }

// TestKeys compares program, schema and documentation.
func TestKeys(t *testing.T) {
	want := goKeys(reflect.TypeFor[file](), "")
	slices.Sort(want)
	var root map[string]any
	if err := json.Unmarshal(read(t, schemaFile), &root); err != nil {
		t.Fatal(err)
	}
	got := schemaKeys(t, root, root, "")
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("keys of the program (-) and of the schema (+):\n%s", diff)
	}

	doc := string(read(t, "../../docs/config.md"))
	told := map[string]bool{}
	for line := range strings.Lines(doc) {
		if key, ok := strings.CutPrefix(line, "| `"); ok {
			key, _, _ = strings.Cut(key, "`")
			told[key] = true
		}
	}
	known := map[string]bool{}
	for i, key := range want {
		leaf := i+1 == len(want) || !strings.HasPrefix(want[i+1], key+".") // sorted; no sibling continues a key with a character that sorts before the dot
		for _, level := range []string{"sites.NAME", "domains.NAME", "regions.NAME", "defaults"} {
			if rest, ok := strings.CutPrefix(key, level+"."); ok && slices.Contains(goKeys(reflect.TypeFor[levelFile](), ""), rest) {
				key = "LEVEL." + strings.Replace(rest, "targets.NAME", "targets.CHANNEL", 1)
				break
			}
		}
		known[key] = true
		if leaf && !told[key] {
			t.Errorf("docs/config.md does not tell %s", key)
		}
	}
	for key := range told {
		if !known[key] {
			t.Errorf("docs/config.md tells %s, which does not exist", key)
		}
	}
}

func compileSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(read(t, schemaFile)))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("nightferry.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("nightferry.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// validate returns the error that an editor would show.
func validate(t *testing.T, s *jsonschema.Schema, text []byte) error {
	t.Helper()
	j, err := yaml.YAMLToJSON(text)
	if err != nil {
		return err
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(j))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(v)
}
