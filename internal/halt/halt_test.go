package halt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"nightferry/internal/frame"
)

var equal = []cmp.Option{cmpopts.EquateEmpty(), cmp.AllowUnexported(Orders{}, Order{})}

// id returns a recognizable ID.
func id(n uint64) (i ID) {
	binary.BigEndian.PutUint64(i[:], n)
	return i
}

func orders() *Orders {
	return &Orders{Active: []Order{
		{ID: id(7), Scope: Channel, Value: "patch", By: "ops@core"},
		{ID: id(1 << 40), Scope: Domain, Value: "corp.example", Reason: "ключ", By: "ops@core"},
		{ID: id(2), Scope: Site, Value: "tokyo-1", Reason: "disk failing", By: "ops@core", At: 1_700_000_000},
		{ID: id(3), Scope: Region, Value: "AP", Reason: "typhoon", By: "ops@core", At: 1_700_000_001},
	}}
}

func TestRoundTrip(t *testing.T) {
	for _, want := range []*Orders{orders(), {}, {Active: []Order{{ID: id(1), Scope: All}}}} {
		b, err := want.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, equal...); d != "" {
			t.Error(d)
		}
	}
}

func TestFind(t *testing.T) {
	for _, c := range []struct {
		s    Subject
		want uint64
	}{
		{Subject{}, 0},
		{Subject{Region: "EMEA", Domain: "x", Site: "paris-1", Channel: "driver"}, 0},
		{Subject{Site: "tokyo-1"}, 2},
		{Subject{Region: "AP", Site: "tokyo-1"}, 2},
		{Subject{Region: "AP", Site: "osaka-1"}, 3},
		{Subject{Channel: "patch"}, 7},
		{Subject{Domain: "corp.example"}, 1 << 40},
		{Subject{Site: "AP", Channel: "AP", Domain: "AP"}, 0}, // a value matches only in its own scope
	} {
		o := orders().Find(c.s)
		if o == nil && c.want != 0 || o != nil && o.ID != id(c.want) {
			t.Errorf("%+v: stopped by %+v, want %d", c.s, o, c.want)
		}
	}
	all := &Orders{Active: []Order{{ID: id(9), Scope: All, Reason: "stop", By: "ops"}}}
	o := all.Find(Subject{})
	if o == nil {
		t.Fatal("an order to all does not stop one who names nothing")
	}
	if s := (&Error{Order: *o}).Error(); s != "halted by order 00000000 (all) from ops: stop" {
		t.Error(s)
	}
	if s := (&Error{Order: orders().Active[2]}).Error(); !strings.Contains(s, "site tokyo-1") {
		t.Error(s)
	}
	// An invalid order that Validate would refuse stops no subject without a site.
	if (&Orders{Active: []Order{{ID: id(1), Scope: Site}}}).Find(Subject{}) != nil {
		t.Error("an order without a value stops everybody")
	}
}

func TestRefuses(t *testing.T) {
	for name, change := range map[string]func(*Orders){
		"a scope that is not known": func(o *Orders) { o.Active[0].Scope = "planet" },
		"all with a value":          func(o *Orders) { o.Active[0].Scope = All },
		"a site without a value":    func(o *Orders) { o.Active[2].Value = "" },
		"a channel without a value": func(o *Orders) { o.Active[0].Value = "" },
		"a long value":              func(o *Orders) { o.Active[0].Value = strings.Repeat("x", MaxValue+1) },
		"a long reason":             func(o *Orders) { o.Active[0].Reason = strings.Repeat("x", MaxReason+1) },
		"a long name":               func(o *Orders) { o.Active[0].By = strings.Repeat("x", MaxValue+1) },
		"a time before time began":  func(o *Orders) { o.Active[0].At = -1 },
		"an id twice":               func(o *Orders) { o.Active[1].ID = o.Active[0].ID },
		"an id twice, at two times": func(o *Orders) { o.Active[3].ID = o.Active[0].ID },
		"times out of order":        func(o *Orders) { o.Active[3].At = 1_600_000_000 },
		"ids out of order":          func(o *Orders) { o.Active[1].ID = id(6) },
		"no id":                     func(o *Orders) { o.Active[0].ID = ID{} },
		"a terminal's escape":       func(o *Orders) { o.Active[0].Reason = "\x1b[2J" },
		"a newline in a value":      func(o *Orders) { o.Active[0].Value = "a\nb" },
		"a C1 control in a name":    func(o *Orders) { o.Active[0].By = "a\u009b" },
		"more orders than there may": func(o *Orders) {
			for i := range MaxOrders {
				o.Active = append(o.Active, Order{ID: id(1<<41 + uint64(i)), Scope: All, At: 1 << 40})
			}
		},
	} {
		o := orders()
		change(o)
		if _, err := o.Encode(); !errors.Is(err, frame.ErrDamaged) {
			t.Errorf("%s: encoded, %v", name, err)
		}
		b, err := frame.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Decode(b); !errors.Is(err, frame.ErrDamaged) || got != nil {
			t.Errorf("%s: decoded, %v", name, err)
		}
	}
	good, err := orders().Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"nothing": nil, "cut short": good[:len(good)-1], "a byte more": append(bytes.Clone(good), 0), "too long": make([]byte, MaxPayload+1)} {
		if _, err := Decode(b); !errors.Is(err, frame.ErrDamaged) || name == "too long" && !strings.Contains(err.Error(), fmt.Sprint(MaxPayload)) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
}

// TestEncodeRefusesWhatNobodyCouldRead checks that the maximum number of orders, each with the longest texts, exceeds
// the bound of the object.
func TestEncodeRefusesWhatNobodyCouldRead(t *testing.T) {
	var o Orders
	for i := range MaxOrders {
		o.Active = append(o.Active, Order{ID: id(uint64(i + 1)), Scope: Site, Value: strings.Repeat("v", MaxValue), Reason: strings.Repeat("r", MaxReason)})
	}
	if _, err := o.Encode(); err == nil || !strings.Contains(err.Error(), "lift some") {
		t.Errorf("error is %v", err)
	}
}

// TestMatch checks that the start of an id identifies an order if no other id starts with it.
func TestMatch(t *testing.T) {
	a, b := ID{0xab, 0xcd, 1}, ID{0xab, 0xcd, 2}
	o := &Orders{}
	o.Add(Order{ID: a, Scope: All}, Order{ID: b, Scope: All}, Order{ID: a, Scope: All})
	if len(o.Active) != 2 {
		t.Fatalf("%+v", o.Active)
	}
	for prefix, want := range map[string]ID{"abcd01": a, "ABCD02": b, b.String(): b} {
		if got, err := o.Match(prefix); err != nil || got == nil || got.ID != want {
			t.Errorf("%s: %+v, %v", prefix, got, err)
		}
	}
	if got, err := o.Match("abcd"); !errors.Is(err, ErrAmbiguous) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := o.Match("abce"); got != nil || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
	for s, want := range map[string]bool{"abc": false, "abcd": true, "ABCD": true, "abcg": false, strings.Repeat("a", 33): false, "file:///x": false} {
		if IsPrefix(s) != want {
			t.Errorf("%q: %t", s, !want)
		}
	}
}

// TestNoReasonKeepsAnOrderFromBeingGiven: texts that no order may hold are made fit.
func TestNoReasonKeepsAnOrderFromBeingGiven(t *testing.T) {
	for _, reason := range []string{"wrong\ndriver", "a\x1b[2Jb\r\x00", "\xff\xfe", strings.Repeat("é", MaxReason), "\u202e"} {
		o := NewOrder(Site, "osaka", reason, reason, time.Unix(1, 0))
		var orders Orders
		orders.Add(o)
		if _, err := orders.Encode(); err != nil {
			t.Errorf("%q: %v", reason, err)
		}
	}
}
