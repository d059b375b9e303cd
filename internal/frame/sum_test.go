package frame

import (
	"bytes"
	"errors"
	"testing"
)

func TestSumShowsEveryFlippedBit(t *testing.T) {
	b, err := Encode("test", 2, "content")
	if err != nil {
		t.Fatal(err)
	}
	whole := AppendSum(bytes.Clone(b))
	if got, err := CutSum("test", 2, whole); err != nil || !bytes.Equal(got, b) {
		t.Fatalf("%x, %v", got, err)
	}
	for i := range 8 * len(whole) {
		bad := bytes.Clone(whole)
		bad[i/8] ^= 1 << (i % 8)
		var newer *NewerError
		if _, err := CutSum("test", 2, bad); !errors.Is(err, ErrDamaged) && !errors.As(err, &newer) {
			t.Errorf("bit %d flipped: %v", i, err)
		}
	}
	for n := range whole {
		if _, err := CutSum("test", 2, whole[:n]); !errors.Is(err, ErrDamaged) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	var newer *NewerError
	if _, err := CutSum("test", 1, b); !errors.As(err, &newer) || newer.Version != 2 {
		t.Errorf("a newer version that ends otherwise: %v", err)
	}
}
