package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nightferry/internal/digest"
	"nightferry/internal/frame"
	"nightferry/internal/trust"
)

func release() *Release {
	return &Release{
		Channel: "driver", Parent: trust.ReleaseDigest(id("parent")), Created: 1_700_000_000, Note: "rollback to 3", Portable: true,
		Totals: Totals{Files: 700, Dirs: 5, Bytes: 1 << 40}, Tree: id("tree"),
		Pages: []PageRef{{ID: id("1"), Entries: 600, First: "a"}, {ID: id("2"), Entries: 105, First: "b/c"}},
	}
}

func TestReleaseRoundTrip(t *testing.T) {
	for name, want := range map[string]*Release{
		"of two pages": release(),
		"of nothing":   {Channel: "driver", Tree: digest.Of(nil)},
	} {
		b, err := EncodeRelease(want)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := DecodeRelease(b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if d := cmp.Diff(want, got, equal...); d != "" {
			t.Errorf("%s:\n%s", name, d)
		}
		if again, err := EncodeRelease(got); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%s: encodes differently the second time: %v", name, err)
		}
	}
}

func TestReleaseRefuses(t *testing.T) {
	for name, change := range map[string]func(*Release){
		"a channel with a slash":  func(r *Release) { r.Channel = "../x" },
		"negative files":          func(r *Release) { r.Totals.Files = -1; r.Totals.Dirs = 706 },
		"negative folders":        func(r *Release) { r.Totals.Dirs = -1; r.Totals.Files = 706 },
		"negative bytes":          func(r *Release) { r.Totals.Bytes = -1 },
		"more bytes than can be":  func(r *Release) { r.Totals.Bytes = MaxBytes + 1 },
		"a long note":             func(r *Release) { r.Note = strings.Repeat("x", MaxNote+1) },
		"no tree digest":          func(r *Release) { r.Tree = digest.Digest{} },
		"a page of nothing":       func(r *Release) { r.Pages[0].Entries = 0; r.Totals.Files = 100 },
		"a page of too much":      func(r *Release) { r.Pages[0].Entries = MaxPageEntries + 1; r.Totals.Files = MaxPageEntries + 101 },
		"a page without id":       func(r *Release) { r.Pages[1].ID = digest.Digest{} },
		"a page that leaves":      func(r *Release) { r.Pages[1].First = "../x" },
		"pages out of order":      func(r *Release) { r.Pages[1].First = "a" },
		"pages that lack entries": func(r *Release) { r.Totals.Files++ },
		"a billion entries":       func(r *Release) { r.Totals.Files = 1_000_000_000 },
		"a wrap of the totals":    func(r *Release) { r.Totals.Files, r.Totals.Dirs = 1<<63-1, 1<<63-1 },
	} {
		r := release()
		change(r)
		if _, err := EncodeRelease(r); err == nil {
			t.Errorf("%s: was encoded", name)
		}
		b, err := frame.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := DecodeRelease(b); !errors.Is(err, frame.ErrDamaged) || got != nil {
			t.Errorf("%s: decoded, %v", name, err)
		}
	}
	b, err := frame.Marshal(release())
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"a byte too many": append(bytes.Clone(b), 0), "cut short": b[:len(b)-1], "too long": make([]byte, MaxRelease), "nothing": nil} {
		if _, err := DecodeRelease(b); !errors.Is(err, frame.ErrDamaged) || name == "too long" && !strings.Contains(err.Error(), fmt.Sprint(MaxRelease)) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
}

// TestBillionEntries makes manifests that declare or hold a billion entries:
// the error must give the number and the limit, without allocating memory.
func TestBillionEntries(t *testing.T) {
	r := release()
	r.Pages, r.Totals = nil, Totals{}
	for i := range 1_000_000_000/MaxPageEntries + 1 {
		r.Pages = append(r.Pages, PageRef{ID: id("p"), Entries: MaxPageEntries, First: fmt.Sprintf("%09d", i)})
		r.Totals.Files += MaxPageEntries
	}
	claimed := r.Totals.Files
	for _, totals := range []Totals{{Files: claimed}, {Dirs: claimed}, {Files: claimed / 2, Dirs: claimed - claimed/2}} {
		r.Totals = totals
		b, err := frame.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		_, err = DecodeRelease(b)
		if !errors.Is(err, frame.ErrDamaged) || !strings.Contains(err.Error(), fmt.Sprint(MaxEntries)) || !strings.Contains(err.Error(), fmt.Sprintf("%d files and %d folders", totals.Files, totals.Dirs)) {
			t.Errorf("%+v: error is %v", totals, err)
		}
	}
}

func TestEncodeReleaseRefusesWhatIsTooLong(t *testing.T) {
	r := release()
	r.Pages, r.Totals = nil, Totals{}
	dir := strings.Repeat(strings.Repeat("x", 200)+"/", 15)
	for i := range MaxRelease / len(dir) {
		r.Pages = append(r.Pages, PageRef{ID: id("p"), Entries: 1, First: fmt.Sprintf("%s%09d", dir, i)})
		r.Totals.Files++
	}
	if _, err := EncodeRelease(r); err == nil || !strings.Contains(err.Error(), "split the channel") {
		t.Errorf("error is %v", err)
	}
}
