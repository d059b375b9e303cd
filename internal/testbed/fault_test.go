package testbed

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nightferry/internal/bucket"
)

func dirStore(t *testing.T) bucket.Store {
	return OpenStore(t, FileURL(t.TempDir()), bucket.Options{})
}

func putErr(t *testing.T, s bucket.Store, key string) error {
	_, err := s.Put(t.Context(), key, bucket.Bytes([]byte("0123456789")), bucket.Cond{})
	return err
}

func TestFailByPlan(t *testing.T) {
	s := dirStore(t)
	killed := 0
	f := Fail(s,
		Rule{Op: "put", Prefix: "a/", Nth: 2},
		Rule{Op: "put", Prefix: "b/", Done: true, Kind: bucket.KindUnreachable},
		Rule{Op: "get", Prefix: "c/", Done: true},
		Rule{Op: "delete", Dead: true, Do: func() { killed++ }})
	if err := putErr(t, f, "a/1"); err != nil {
		t.Error(err)
	}
	if err := putErr(t, f, "a/2"); !errors.Is(err, ErrFault) {
		t.Error(err)
	}
	if err := putErr(t, f, "b/1"); bucket.KindOf(err) != bucket.KindUnreachable {
		t.Error(err)
	}
	if err := putErr(t, f, "c/1"); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"a/1", "b/1", "c/1"}, Keys(t, s, "")); diff != "" {
		t.Error(diff)
	}
	r, _, err := f.Get(t.Context(), "c/1", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, err := io.ReadAll(r); string(b) != "01234" || !errors.Is(err, ErrFault) {
		t.Errorf("%q %v", b, err)
	}
	if err := f.Delete(t.Context(), "a/1"); !errors.Is(err, ErrFault) || killed != 1 {
		t.Error(err, killed)
	}
	if err := putErr(t, f, "z"); !errors.Is(err, ErrDead) {
		t.Error(err)
	}
	if _, _, err := f.Get(t.Context(), "a/1", 0, -1); !errors.Is(err, ErrDead) {
		t.Error(err)
	}
	wanted := []Call{{"put", "a/1"}, {"put", "a/2"}, {"put", "b/1"}, {"put", "c/1"}, {"get", "c/1"}, {"delete", "a/1"}, {"put", "z"}, {"get", "a/1"}}
	if diff := cmp.Diff(wanted, f.Calls()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"a/1", "b/1", "c/1"}, Keys(t, s, "")); diff != "" {
		t.Errorf("the dead changed the store: %s", diff)
	}
}

func TestCount(t *testing.T) {
	c := Count(dirStore(t))
	if err := putErr(t, c, "k"); err != nil {
		t.Fatal(err)
	}
	ReadObject(t, c, "k")
	Keys(t, c, "")
	if err := c.Delete(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	wanted := Counts{Gets: 1, Puts: 1, Deletes: 1, Lists: 1, Got: 10, Sent: 10}
	if diff := cmp.Diff(wanted, c.Reset()); diff != "" || c.Counts() != (Counts{}) {
		t.Error(diff)
	}
}

func TestCorrupt(t *testing.T) {
	s := dirStore(t)
	WriteObject(t, s, "k", []byte("0123456789"))
	f := FlipReads(s, func(string, int64, int64) (int64, bool) { return 3, true })
	if got := ReadObject(t, f, "k"); bytes.Equal(got, []byte("0123456789")) || f.Flips() != 1 {
		t.Errorf("%q arrived whole", got)
	}
	if got := ReadObject(t, s, "k"); string(got) != "0123456789" {
		t.Errorf("%q is stored", got)
	}
	FlipBit(t, s, "k", -1, 0)
	if got := ReadObject(t, s, "k"); string(got) != "0123456788" {
		t.Errorf("%q is stored", got)
	}
	Truncate(t, s, "k", 3)
	if got := ReadObject(t, s, "k"); string(got) != "012" {
		t.Errorf("%q is stored", got)
	}
	DeleteObject(t, s, "k")
	if got := Keys(t, s, ""); len(got) != 0 {
		t.Error(got)
	}
}
