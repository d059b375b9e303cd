package api

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nightferry/internal/core"
	"nightferry/internal/record"
	"nightferry/internal/tasks"
	"nightferry/internal/vault"
)

// contractTypes returns all types that a client sees: those of the routes and of the client's methods.
func contractTypes(t *testing.T) map[reflect.Type]bool {
	t.Helper()
	seen := map[reflect.Type]bool{}
	var walk func(reflect.Type)
	walk = func(x reflect.Type) {
		if x == nil || seen[x] {
			return
		}
		seen[x] = true
		switch x.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Array:
			walk(x.Elem())
		case reflect.Map:
			walk(x.Key())
			walk(x.Elem())
		case reflect.Struct:
			for i := range x.NumField() {
				if x.Field(i).IsExported() || x.Field(i).Anonymous {
					walk(x.Field(i).Type)
				}
			}
		case reflect.Func:
			for i := range x.NumIn() {
				walk(x.In(i))
			}
			for i := range x.NumOut() {
				walk(x.Out(i))
			}
		}
	}
	for _, r := range Routes(Backend{}) {
		walk(r.Query)
		walk(r.Body)
		walk(r.Answer)
	}
	client := reflect.TypeFor[*Client]()
	for i := range client.NumMethod() {
		walk(client.Method(i).Type)
	}
	if len(seen) < 60 {
		t.Fatalf("%d types: the search no longer fits", len(seen))
	}
	return seen
}

// TestContractIsItsOwn checks that no type of the contract reaches a type of a room that stores or decides: those
// may change without a decision about the contract. Formats and the ground floor are shared facts.
func TestContractIsItsOwn(t *testing.T) {
	for x := range contractTypes(t) {
		for _, room := range []string{"core", "query", "ledger", "record", "vault", "tasks", "config", "desired", "halting", "incident", "enrolment", "heads"} {
			if x.PkgPath() == "nightferry/internal/"+room {
				t.Errorf("the contract shows %s: give it a view of its own", x)
			}
		}
	}
}

// fill sets each exported field to a value that is not zero, so that no field is left out of the JSON.
func fill(v reflect.Value) {
	switch x := v.Addr().Interface().(type) {
	case *time.Time:
		*x = time.Date(2026, 11, 30, 1, 2, 3, 0, time.UTC)
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(7_000_000_000)
	case reflect.Uint64, reflect.Uint8:
		v.SetUint(7)
	case reflect.Float64:
		v.SetFloat(7)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				fill(v.Field(i))
			}
		}
	}
}

// sameJSON fails if the view of a filled value lacks, or renames, a field.
func sameJSON[T, V any](t *testing.T, view func(*T) V) {
	t.Helper()
	var x T
	fill(reflect.ValueOf(&x).Elem())
	was, err := json.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	is, err := json.Marshal(view(&x))
	if err != nil {
		t.Fatal(err)
	}
	var a, b any
	if json.Unmarshal(was, &a) != nil || json.Unmarshal(is, &b) != nil {
		t.Fatal("not JSON")
	}
	if strings.Count(string(was), "null") > 0 {
		t.Fatalf("%T was not filled: %s", x, was)
	}
	if d := cmp.Diff(a, b); d != "" {
		t.Errorf("%T and its view: %s", x, d)
	}
}

// TestViewsAreComplete checks each view against the type that it shows.
func TestViewsAreComplete(t *testing.T) {
	sameJSON(t, statusOf)
	sameJSON(t, siteOf)
	sameJSON(t, reasonOf)
	sameJSON(t, placeOf)
	sameJSON(t, incidentOf)
	sameJSON(t, planOf)
	sameJSON(t, openingOf)
	sameJSON(t, haltOf)
	sameJSON(t, detailOf)
	sameJSON(t, exceptionOf)
	sameJSON(t, auditEntryOf)
	sameJSON(t, orderOf)
	sameJSON(t, limitedOf)
	sameJSON(t, issuedOf)
	sameJSON(t, alertTestOf)
	sameJSON(t, haltChangeOf)
	sameJSON(t, eventOf)
	sameJSON(t, func(x *record.File) *File { return fileOf(*x) })
	sameJSON(t, func(x *vault.Info) Secret { return SecretViews([]vault.Info{*x})[0] })
	sameJSON(t, func(x *core.Published) Published { return Published(*x) })
	sameJSON(t, func(x *core.Health) Health { return Health(*x) })
	var task tasks.Status
	fill(reflect.ValueOf(&task).Elem())
	if v := reflect.ValueOf(taskOf(&task)); v.NumField() != reflect.TypeFor[tasks.Status]().NumField() {
		t.Errorf("%d fields of a task, %d of its view", reflect.TypeFor[tasks.Status]().NumField(), v.NumField())
	}
}
