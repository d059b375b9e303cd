package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"time"

	"nightferry/internal/core"
	"nightferry/internal/rights"
)

// Route is one call of the contract, with the types of its parts.
type Route struct {
	Method  string
	Path    string // as http.ServeMux has it: /v1/runs/{id}
	Summary string
	Query   reflect.Type // its fields are the parameters, by the tags path, query and doc; nil: none
	Body    reflect.Type // nil: none
	Answer  reflect.Type // of a stream: of one line
	Media   string       // application/json, or that of a stream
	Need    Need         // rights without which no request can succeed
	// Refuse returns the refusal of a principal that lacks Need, and audits it. Handle checks the rights over the subject of the
	// request: it knows that only from the parameters.
	Refuse func(ctx context.Context, p rights.Principal) error
	// Handle answers. It returns the answer, for JSON; nil if it has streamed it.
	Handle func(ctx context.Context, c *Call) (any, error)
}

// Need is the right that every request of a route needs.
type Need struct {
	Role rights.Role
	All  bool // over all sites
}

func some(role rights.Role) Need { return Need{Role: role} }
func all(role rights.Role) Need  { return Need{role, true} }

func (n Need) isMet(p rights.Principal) bool { return p.Role >= n.Role && (!n.All || p.Scope.All()) }

// Media types of answers.
const (
	mediaJSON   = "application/json"
	mediaLines  = "application/x-ndjson"
	mediaEvents = "text/event-stream"
)

// none stands for parameters, or a body, that a route does not have.
type none struct{}

// typeOf returns nil for none.
func typeOf[T any]() reflect.Type {
	if t := reflect.TypeFor[T](); t != reflect.TypeFor[none]() {
		return t
	}
	return nil
}

func addRoute[Q, B, A any](r *routes, need Need, method, path, media, summary string, handle func(ctx context.Context, c *Call, q Q, body B) (any, error)) {
	x := Route{Method: method, Path: path, Summary: summary, Query: typeOf[Q](), Body: typeOf[B](), Answer: typeOf[A](), Media: media, Need: need}
	x.Refuse = func(ctx context.Context, p rights.Principal) error {
		return r.guard.refuse(rights.With(core.WithActor(ctx, p.Name), p), &rights.DeniedError{Who: p, What: method + " " + path, Need: need.Role, All: need.All})
	}
	x.Handle = func(ctx context.Context, c *Call) (any, error) {
		var q Q
		if err := readQuery(c.r, &q); err != nil {
			return nil, err
		}
		var body B
		if x.Body != nil {
			if err := c.Read(&body); err != nil {
				return nil, err
			}
		}
		return handle(rights.With(core.WithActor(ctx, c.Principal.Name), c.Principal), c, q, body)
	}
	r.all = append(r.all, x)
}

// get adds a route that reads.
func get[Q, A any](r *routes, need Need, path, summary string, handle func(context.Context, Q) (A, error)) {
	addRoute[Q, none, A](r, need, http.MethodGet, path, mediaJSON, summary, func(ctx context.Context, _ *Call, q Q, _ none) (any, error) { return handle(ctx, q) })
}

// post adds a route that changes something.
func post[B, A any](r *routes, need Need, path, summary string, handle func(context.Context, B) (A, error)) {
	addRoute[none, B, A](r, need, http.MethodPost, path, mediaJSON, summary, func(ctx context.Context, _ *Call, _ none, body B) (any, error) { return handle(ctx, body) })
}

// stream adds a route whose answer is a stream of lines.
func stream[Q, B, L any](r *routes, need Need, method, path, summary string, handle func(ctx context.Context, q Q, body B, send func(*L) error) error) {
	addRoute[Q, B, L](r, need, method, path, mediaLines, summary, func(ctx context.Context, c *Call, q Q, body B) (any, error) {
		return nil, handle(ctx, q, body, func(line *L) error { return c.Send(line) })
	})
}

// parameter is one field of a query.
type parameter struct {
	name, doc string
	path      bool // part of the path
	min, max  int  // of a number; 0: no bound
	index     []int
	kind      reflect.Type
}

// parametersOf lists the parameters of a query's type, in the order of its fields.
func parametersOf(t reflect.Type) (out []parameter) {
	if t == nil {
		return nil
	}
	for _, f := range reflect.VisibleFields(t) {
		p := parameter{name: f.Tag.Get("query"), doc: f.Tag.Get("doc"), index: f.Index, kind: f.Type}
		if name := f.Tag.Get("path"); name != "" {
			p.name, p.path = name, true
		}
		p.min, _ = strconv.Atoi(f.Tag.Get("min")) // absent: 0
		p.max, _ = strconv.Atoi(f.Tag.Get("max"))
		if p.name != "" {
			out = append(out, p)
		}
	}
	return out
}

// readQuery decodes the parameters of a request, strictly: ignoring an unknown one could
// do more than was asked for.
func readQuery(req *http.Request, v any) error {
	into := reflect.ValueOf(v).Elem()
	given := req.URL.Query()
	for _, p := range parametersOf(into.Type()) {
		values := given[p.name]
		delete(given, p.name)
		if p.path {
			values = []string{req.PathValue(p.name)}
		}
		if len(values) > 1 {
			return badQuery("parameter %s is given %d times", p.name, len(values))
		}
		if len(values) == 0 || values[0] == "" {
			continue
		}
		if err := p.decode(into.FieldByIndex(p.index), values[0]); err != nil {
			return err
		}
	}
	for name := range given {
		return badQuery("unknown parameter %q", name)
	}
	return nil
}

func (p *parameter) decode(into reflect.Value, text string) error {
	switch x := into.Addr().Interface().(type) {
	case *bool:
		if text != "true" && text != "false" {
			return badQuery("%s %q: want true or false", p.name, text)
		}
		*x = text == "true"
	case *int:
		n, err := strconv.Atoi(text)
		if err != nil || n < p.min || p.max > 0 && n > p.max {
			return badQuery("%s %q: want %d to %d", p.name, text, p.min, p.max)
		}
		*x = n
	case *time.Time:
		t, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			return badQuery("%s: %v", p.name, err)
		}
		*x = t
	default:
		into.SetString(text)
	}
	return nil
}

// queryOf is the reverse of readQuery, without the fields of the path. Zero fields are left out.
func queryOf(v any) url.Values {
	from, out := reflect.ValueOf(v), url.Values{}
	for _, p := range parametersOf(from.Type()) {
		x := from.FieldByIndex(p.index)
		if p.path || x.IsZero() {
			continue
		}
		text := fmt.Sprint(x.Interface())
		if t, ok := x.Interface().(time.Time); ok {
			text = t.UTC().Format(time.RFC3339Nano)
		}
		out.Set(p.name, text)
	}
	return out
}

// checkAll refuses a request that names no sites, unless it states that it is for all: a forgotten scope would move the whole fleet.
func checkAll(s Scope, all bool) error {
	if named := s.Site != "" || s.Region != "" || s.Domain != ""; named == all {
		return badQuery("want a scope with a site, a region or a domain, or \"all\": true")
	}
	return nil
}

func badQuery(format string, args ...any) error {
	return &Error{Code: "usage", Message: fmt.Sprintf(format, args...), Fix: "GET /v1/openapi.json lists the parameters of each route"}
}
