package wire

import (
	"errors"
	"math"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"nightferry/internal/frame"
)

// TestExtremesAreRefused sets each number and text of a site's messages to extreme values that no view, sum or table
// could handle.
func TestExtremesAreRefused(t *testing.T) {
	for _, m := range []any{&Hello{}, &Beat{Waits: make([]Wait, 1)}, &Stopped{Orders: make([]Stop, 1)}, &Progress{}, &Renew{}, &Report{}, &Started{}, &Finished{Verdict: "failed"}, &Problem{Kind: "disk"}, &Attestation{}} {
		each(reflect.ValueOf(m).Elem(), func(name string, f reflect.Value) {
			was := reflect.New(f.Type()).Elem()
			was.Set(f)
			defer f.Set(was)
			var extremes []any
			switch f.Kind() {
			case reflect.Int64:
				extremes = []any{int64(math.MaxInt64), int64(math.MinInt64), int64(1) << 62}
			case reflect.Uint64:
				extremes = []any{uint64(math.MaxUint64), uint64(1) << 63}
			}
			for _, x := range extremes {
				f.Set(reflect.ValueOf(x).Convert(f.Type()))
				if err := checkBounds(m); err == nil {
					t.Errorf("%T.%s = %v is accepted", m, name, x)
				}
			}
			if f.Kind() != reflect.String {
				return
			}
			f.SetString("\x1b[2J\u202e\u2028" + strings.Repeat("é", 50_000))
			if err := checkBounds(m); err == nil && (len(f.String()) > maxTexts || strings.ContainsAny(f.String(), "\x1b\u202e\u2028")) {
				t.Errorf("%T.%s: a text of %d bytes is accepted: %.20q", m, name, len(f.String()), f.String())
			}
		})
	}
}

func each(v reflect.Value, fn func(string, reflect.Value)) {
	for i := range v.NumField() {
		f, name := v.Field(i), v.Type().Field(i).Name
		switch {
		case name == "_":
		case f.Kind() == reflect.Slice && f.Type().Elem().Kind() == reflect.Struct && f.Len() > 0:
			each(f.Index(0), fn)
		default:
			fn(name, f)
		}
	}
}

// TestBoundsLetTheFieldThrough checks that the values of real sites pass and that texts are unchanged.
func TestBoundsLetTheFieldThrough(t *testing.T) {
	for _, v := range values() {
		if err := checkBounds(v); err != nil {
			t.Errorf("%T: %v", v, err)
		}
	}
	if got := Text("C:\\Gerät\\Ünïcode.msi"); got != "C:\\Gerät\\Ünïcode.msi" {
		t.Errorf("%q", got)
	}
}

// TestBombIsRefusedCheaply checks that a short message that decodes to a million halt orders is refused before it uses
// that much memory.
func TestBombIsRefusedCheaply(t *testing.T) {
	for verb, v := range map[string]any{
		VerbStopped: &Stopped{Orders: make([]Stop, 200_000)}, VerbHello: &Hello{Holds: make([]Held, 100_000)},
		VerbAsk: &Ask{Keys: make([]string, 1<<20-1)}, VerbReport: &Report{Events: make([]Event, 1<<20-1)},
	} {
		b, err := Sign(key(1), repo, here, verb, 1, v)
		if err != nil {
			t.Fatal(verb, err)
		}
		into := reflect.New(reflect.TypeOf(v).Elem()).Interface()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err = Open(b, repo, here, verb, By(public(1)), into)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, frame.ErrDamaged) {
			t.Errorf("%s: %v, want refused", verb, err)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 24<<20 {
			t.Errorf("%s of %d bytes took %d MiB", verb, len(b), took>>20)
		}
	}
}
