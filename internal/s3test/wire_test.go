package s3test

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nightferry/internal/bucket"
	"nightferry/internal/testbed"
)

// The wire counts the requests of every program, and passes bodies unchanged.
func TestWireCounts(t *testing.T) {
	b, w := CountHTTP(t, S3(t))
	s := b.Open(t)
	big := bytes.Repeat([]byte("night"), 1<<20)
	testbed.WriteObject(t, s, "a/big", big)
	if !bytes.Equal(testbed.ReadObject(t, s, "a/big"), big) {
		t.Error("other bytes came back")
	}
	testbed.Keys(t, s, "a/")
	if _, _, err := s.Get(t.Context(), "none", 0, -1); bucket.KindOf(err) != bucket.KindNotExist {
		t.Error(err)
	}
	c := w.Reset()
	if diff := cmp.Diff(map[string]int64{KindPut: 1, KindGet: 2, KindList: 1}, c.Kinds); diff != "" {
		t.Error(diff)
	}
	if c.Up != int64(len(big)) || c.Down < int64(len(big)) || c.Down > int64(len(big))+4096 || c.Failed != 1 || c.Requests() != 4 {
		t.Error(c)
	}
}

func TestFlipOnTheWire(t *testing.T) {
	direct := S3(t)
	b, _ := Through(t, direct, FlipBody(1, 7))
	testbed.WriteObject(t, direct.Open(t), "k", make([]byte, 20))
	s := b.Open(t)
	hit := make([]byte, 20)
	hit[7] = 0x10
	if got := testbed.ReadObject(t, s, "k"); !bytes.Equal(got, hit) {
		t.Errorf("%v", got)
	}
	if got := testbed.ReadObject(t, s, "k"); !bytes.Equal(got, make([]byte, 20)) {
		t.Errorf("the second body: %v", got)
	}
}
