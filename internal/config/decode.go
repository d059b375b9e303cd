package config

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"nightferry/internal/fleet"
)

const (
	maxFile  = 1 << 20 // bytes
	maxDepth = 100     // of brackets: the parser's time grows with their square
)

// position is a place in the file, counted from 1.
type position struct{ line, column int }

// scalar is a value of a type that YAML does not have.
type scalar interface{ parseText(text string) error }

// shorthand is a mapping that may be written as a plain text.
type shorthand interface{ setShort(text string) }

// decoder fills Go values from the file. Unlike the library's decoder it
// continues after an error, so that users see all mistakes at once. It
// supports only the part of YAML that a configuration needs. It refuses
// anchors, aliases, tags and merge keys, because they move the meaning of a
// line elsewhere.
type decoder struct {
	file string
	errs Errors
	at   map[string]position // of every value; of a key with # in front
}

func newDecoder(file string) *decoder { return &decoder{file: file, at: map[string]position{}} }

func (d *decoder) addError(p position, key, format string, args ...any) {
	d.errs = append(d.errs, &Error{File: d.file, Line: p.line, Column: p.column, Key: key, Why: fmt.Sprintf(format, args...)})
}

// decodeFile fills v, a pointer to a struct.
func (d *decoder) decodeFile(data []byte, v any) {
	start := position{1, 1}
	data = bytes.TrimPrefix(data, []byte("\ufeff")) // some editors write a byte order mark
	switch {
	case len(data) > maxFile:
		d.addError(start, "", "%d bytes, at most %d are allowed", len(data), maxFile)
		return
	case !utf8.Valid(data):
		d.addError(start, "", "it is not UTF-8: save it in that encoding")
		return
	case tooDeep(data):
		d.addError(start, "", "brackets are nested more than %d deep", maxDepth)
		return
	}
	f, err := parseYAML(data)
	if err != nil {
		p, why := start, err.Error()
		var syntax yaml.Error
		if errors.As(err, &syntax) {
			why = syntax.GetMessage()
			p = tokenPosition(syntax.GetToken())
		}
		if place, text, ok := findSlip(data, p); ok {
			d.addError(place, "", "%s", text)
			return
		}
		d.addError(p, "", "not YAML: %s", why)
		return
	}
	var docs []ast.Node
	for _, doc := range f.Docs {
		if doc.Body != nil {
			docs = append(docs, doc.Body)
		}
	}
	switch {
	case len(docs) == 0:
		d.addError(start, "", "it is empty: want version: 1 and what follows from it")
	case len(docs) > 1:
		d.addError(valuePosition(docs[1]), "", "a second document begins here: want one")
	default:
		d.decodeValue(docs[0], "", reflect.ValueOf(v).Elem())
	}
}

// parseYAML recovers from a parser's panic, which would otherwise end a Core that
// reloads.
func parseYAML(data []byte) (f *ast.File, err error) {
	defer func() {
		if r := recover(); r != nil {
			f, err = nil, errors.New("the parser gave up on it")
		}
	}()
	return parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
}

func tooDeep(data []byte) bool {
	depth := 0
	for line := range bytes.Lines(data) {
		if text := bytes.TrimSpace(line); len(text) > 0 && text[0] == '#' {
			continue
		}
		for _, c := range line {
			switch c {
			case '[', '{':
				depth++
			case ']', '}':
				depth = max(0, depth-1)
			}
			if depth > maxDepth {
				return true
			}
		}
	}
	return false
}

func tokenPosition(t *token.Token) position {
	if t == nil || t.Position == nil {
		return position{1, 1}
	}
	return position{max(1, t.Position.Line), max(1, t.Position.Column)}
}

// valuePosition returns the position of a value.
func valuePosition(n ast.Node) position {
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) > 0 && !m.IsFlowStyle {
		return tokenPosition(m.Values[0].Key.GetToken()) // the library points at the first colon
	}
	return tokenPosition(n.GetToken())
}

func joinKey(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func (d *decoder) decodeValue(n ast.Node, path string, v reflect.Value) {
	p := valuePosition(n)
	d.at[path] = p
	switch n.(type) {
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode, *ast.MergeKeyNode:
		d.addError(p, path, "anchors, aliases, merge keys and tags are not supported: put shared settings into defaults, a region or a domain, and a text that begins with * & or ! into quotes")
		return
	}
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	if s, ok := v.Addr().Interface().(shorthand); ok {
		if text, ok := scalarText(n); ok {
			s.setShort(text)
			return
		}
	}
	if s, ok := v.Addr().Interface().(scalar); ok {
		text, ok := scalarText(n)
		if !ok {
			d.addError(p, path, "want one value, found %s", describeNode(n))
		} else if err := s.parseText(text); err != nil {
			d.addError(p, path, "%v", err)
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct, reflect.Map:
		d.decodeMapping(n, p, path, v)
	case reflect.Slice:
		d.decodeList(n, p, path, v)
	case reflect.String:
		s, ok := n.(*ast.StringNode)
		if !ok {
			d.addError(p, path, "want a text, found %s", describeNode(n))
			return
		}
		if s.Token.Type == token.DoubleQuoteType && hasEscaped(s.Token.Origin, s.Value) {
			d.addError(p, path, "a backslash in double quotes begins an escape: write the text in single quotes")
			return
		}
		v.SetString(s.Value)
	case reflect.Bool:
		b, ok := n.(*ast.BoolNode)
		if !ok {
			d.addError(p, path, "want true or false, found %s", describeNode(n))
			return
		}
		v.SetBool(b.Value)
	case reflect.Int64:
		text, _ := scalarText(n)
		i, err := strconv.ParseInt(text, 10, 64)
		if _, ok := n.(*ast.IntegerNode); !ok || err != nil || strconv.FormatInt(i, 10) != text {
			d.addError(p, path, "want a whole number, found %s", describeNode(n))
			return
		}
		v.SetInt(i)
	case reflect.Float64:
		text, _ := scalarText(n)
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || !isDecimal(text) {
			d.addError(p, path, "want a number, found %s", describeNode(n))
			return
		}
		v.SetFloat(f)
	}
}

func isDecimal(text string) bool {
	return regexp.MustCompile(`^-?[0-9]+(\.[0-9]+)?$`).MatchString(text)
}

// decodeMapping fills a struct or a map from names to values.
func (d *decoder) decodeMapping(n ast.Node, p position, path string, v reflect.Value) {
	if _, ok := n.(*ast.NullNode); ok {
		return // "ap:" alone is a region without any key
	}
	m, ok := n.(*ast.MappingNode)
	if !ok {
		d.addError(p, path, "want keys with values, found %s", describeNode(n))
		return
	}
	if v.Kind() == reflect.Map {
		v.Set(reflect.MakeMap(v.Type()))
	}
	seen := map[string]position{}
	for _, e := range m.Values {
		kp := tokenPosition(e.Key.GetToken())
		key, ok := scalarText(e.Key)
		if !ok || key == "" {
			d.addError(kp, path, "want a plain key, found %s", describeNode(e.Key))
			continue
		}
		sub := joinKey(path, key)
		if before, dup := seen[key]; dup {
			d.addError(kp, sub, "%q stands here twice, first in line %d: leave one", key, before.line)
			continue
		}
		seen[key] = kp
		d.at["#"+sub] = kp
		if v.Kind() == reflect.Map {
			value := reflect.New(v.Type().Elem()).Elem()
			d.decodeValue(e.Value, sub, value)
			v.SetMapIndex(reflect.ValueOf(key), value)
			continue
		}
		field, ok := fieldOf(v, key)
		if !ok {
			known := keysOf(v.Type())
			d.addError(kp, sub, "unknown key %q: %s", key, fleet.Suggest(key, known))
			continue
		}
		d.decodeValue(e.Value, sub, field)
	}
}

func (d *decoder) decodeList(n ast.Node, p position, path string, v reflect.Value) {
	s, ok := n.(*ast.SequenceNode)
	if !ok {
		d.addError(p, path, "want a list such as [a, b], found %s", describeNode(n))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(s.Values), len(s.Values)))
	for i, e := range s.Values {
		d.decodeValue(e, path+"["+strconv.Itoa(i)+"]", v.Index(i))
	}
}

// fieldOf finds the field of a key, also in embedded structs.
func fieldOf(v reflect.Value, key string) (reflect.Value, bool) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Anonymous {
			if got, ok := fieldOf(v.Field(i), key); ok {
				return got, true
			}
		} else if f.Tag.Get("yaml") == key {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

func keysOf(t reflect.Type) []string {
	var out []string
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			out = append(out, keysOf(f.Type)...)
		} else {
			out = append(out, f.Tag.Get("yaml"))
		}
	}
	slices.Sort(out)
	return out
}

// scalarText returns the text of a single value as written in the file.
func scalarText(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	}
	return "", false
}

func describeNode(n ast.Node) string {
	if text, ok := scalarText(n); ok {
		return quoteShort(text)
	}
	switch n.(type) {
	case *ast.NullNode:
		return "nothing"
	case *ast.MappingNode:
		return "keys with values"
	case *ast.SequenceNode:
		return "a list"
	case *ast.LiteralNode:
		return "a text of several lines"
	}
	return "something else"
}

// quoteShort shortens a text, which may be a long paste.
func quoteShort(text string) string {
	const max = 80
	if r := []rune(text); len(r) > max {
		text = string(r[:max]) + "…"
	}
	return strconv.Quote(strings.ToValidUTF8(text, "?"))
}
