package chunk

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"nightferry/internal/digest"
	"nightferry/internal/frame"
)

func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b) // never fails
	return b
}

func cut(t testing.TB, s *Splitter, r io.Reader) (chunks [][]byte) {
	t.Helper()
	s.Reset(r)
	for {
		c, err := s.Next()
		if errors.Is(err, io.EOF) {
			return chunks
		}
		if err != nil {
			t.Fatal(err)
		}
		chunks = append(chunks, bytes.Clone(c))
	}
}

func splitter(t testing.TB) *Splitter {
	t.Helper()
	s, err := NewSplitter(Default())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestAverageSize also shows that the masks follow the average: with the
// library's "fastcdc", chunks of these bytes would average a third of it.
func TestAverageSize(t *testing.T) {
	data := noise(1, 32<<20)
	chunks := cut(t, splitter(t), bytes.NewReader(data))
	if !bytes.Equal(bytes.Join(chunks, nil), data) {
		t.Fatal("the chunks are not the data")
	}
	for i, c := range chunks {
		if len(c) > MaxSize || len(c) < 32<<10 && i < len(chunks)-1 {
			t.Errorf("chunk %d has %d bytes", i, len(c))
		}
	}
	// Normalized chunking exceeds the nominal average: few cuts before it,
	// then one in 32 KiB. The masks give 146 KiB on random bytes.
	t.Logf("%d chunks, %d KiB on average", len(chunks), len(data)/len(chunks)>>10)
	if avg := len(data) / len(chunks); avg < 120<<10 || avg > 160<<10 {
		t.Errorf("the average chunk has %d KiB", avg>>10)
	}
}

// TestCutsAreFrozen checks the cuts of format 1: if the library cut
// elsewhere, every site would download everything again.
func TestCutsAreFrozen(t *testing.T) {
	h := sha256.New()
	var sizes []int
	for _, c := range cut(t, splitter(t), bytes.NewReader(noise(2, 2<<20))) {
		sizes = append(sizes, len(c))
		sum := digest.Of(c)
		h.Write(sum[:])
	}
	if d := cmp.Diff(frozenSizes, sizes); d != "" {
		t.Errorf("the cuts moved:\n%s", d)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != frozenSum {
		t.Errorf("the chunks hash to %s, want %s", got, frozenSum)
	}
}

func TestReadsDoNotMoveCuts(t *testing.T) {
	data := noise(3, 3<<20)
	s := splitter(t)
	want := cut(t, s, bytes.NewReader(data))
	for name, r := range map[string]io.Reader{
		"half reads": iotest.HalfReader(bytes.NewReader(data)), "data with EOF": iotest.DataErrReader(bytes.NewReader(data)),
	} {
		if !slices.EqualFunc(want, cut(t, s, r), bytes.Equal) {
			t.Errorf("%s: other cuts", name)
		}
	}
}

// TestEditMovesFewCuts inserts, deletes and changes bytes anywhere: chunks
// far from the edit must stay the same.
func TestEditMovesFewCuts(t *testing.T) {
	data := noise(4, 6<<20)
	s := splitter(t)
	known := map[digest.Digest]bool{}
	for _, c := range cut(t, s, bytes.NewReader(data)) {
		known[digest.Of(c)] = true
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for name, edit := range map[string]func(at int) []byte{
		"insert": func(at int) []byte { return bytes.Join([][]byte{data[:at], []byte("new"), data[at:]}, nil) },
		"delete": func(at int) []byte { return bytes.Join([][]byte{data[:at], data[at+100:]}, nil) },
		"change": func(at int) []byte { return bytes.Join([][]byte{data[:at], {data[at] ^ 1}, data[at+1:]}, nil) },
	} {
		for range 4 {
			at := rng.IntN(len(data) - 100)
			fresh := 0
			for _, c := range cut(t, s, bytes.NewReader(edit(at))) {
				if !known[digest.Of(c)] {
					fresh++
				}
			}
			if fresh < 1 || fresh > 6 {
				t.Errorf("%s at %d: %d new chunks", name, at, fresh)
			}
		}
	}
}

func TestSmallStreams(t *testing.T) {
	s := splitter(t)
	for _, n := range []int{0, 1, 100, 32<<10 - 1, 32 << 10, 32<<10 + 1} {
		data := noise(5, n)
		chunks := cut(t, s, bytes.NewReader(data))
		if !bytes.Equal(bytes.Join(chunks, nil), data) || n <= 32<<10 && len(chunks) != min(n, 1) {
			t.Errorf("%d bytes make %d chunks", n, len(chunks))
		}
	}
}

func TestReadErrorIsReported(t *testing.T) {
	boom := errors.New("boom")
	s := splitter(t)
	s.Reset(io.MultiReader(bytes.NewReader(noise(6, 600<<10)), iotest.ErrReader(boom)))
	for {
		_, err := s.Next()
		if errors.Is(err, io.EOF) {
			t.Fatal("a failed read passed for the end of the file")
		}
		if err != nil {
			if !errors.Is(err, boom) {
				t.Errorf("error is %v", err)
			}
			break
		}
	}
	// A Splitter that failed cuts the next file as usual.
	if got := cut(t, s, bytes.NewReader([]byte("next"))); len(got) != 1 || string(got[0]) != "next" {
		t.Errorf("after an error: %q", got)
	}
}

func TestSplitterAllocatesNothingPerFile(t *testing.T) {
	s := splitter(t)
	r := bytes.NewReader(nil)
	data := noise(7, 100<<10)
	if n := testing.AllocsPerRun(100, func() {
		r.Reset(data)
		s.Reset(r)
		for {
			if _, err := s.Next(); err != nil {
				return
			}
		}
	}); n > 0 {
		t.Errorf("%v allocations for each file", n)
	}
}

func TestZero(t *testing.T) {
	for _, n := range []int{0, 1, 64 << 10, 64<<10 + 1, 200 << 10} {
		b := make([]byte, n)
		if !Zero(b) {
			t.Errorf("%d zeros are not zero", n)
		}
		for _, i := range []int{0, n / 2, n - 1} {
			if n == 0 {
				continue
			}
			b[i] = 1
			if Zero(b) {
				t.Errorf("byte %d of %d is set, and it is zero", i, n)
			}
			b[i] = 0
		}
	}
}

func TestAppendJoinsHoles(t *testing.T) {
	id := digest.Of([]byte("x"))
	var refs []Ref
	for _, r := range []Ref{{Size: 5}, {Size: 6}, {ID: id, Size: 7}, {ID: id, Size: 7}, {Size: 8}, {Size: MaxHole}} {
		refs = Append(refs, r)
	}
	want := []Ref{{Size: 11}, {ID: id, Size: 7}, {ID: id, Size: 7}, {Size: 8}, {Size: MaxHole}}
	if d := cmp.Diff(want, refs, cmp.AllowUnexported(Ref{})); d != "" {
		t.Error(d)
	}
}

func TestRefValidate(t *testing.T) {
	id := digest.Of([]byte("x"))
	for _, r := range []Ref{{ID: id, Size: 1}, {ID: id, Size: MaxSize}, {Size: 1}, {Size: MaxHole}} {
		if err := r.Validate(); err != nil {
			t.Errorf("%+v: %v", r, err)
		}
	}
	for _, r := range []Ref{{ID: id}, {ID: id, Size: -1}, {ID: id, Size: MaxSize + 1}, {}, {Size: MaxHole + 1}, {Size: -1}} {
		if r.Validate() == nil {
			t.Errorf("%+v was taken", r)
		}
	}
}

func TestParamsValidate(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Params){
		"another algorithm": func(p *Params) { p.Algorithm = "fastcdc" },
		"min of nothing":    func(p *Params) { p.Min = 63 },
		"min not below avg": func(p *Params) { p.Min = p.Avg },
		"avg not below max": func(p *Params) { p.Avg = p.Max },
		"max above bound":   func(p *Params) { p.Max = MaxSize + 1 },
		"no power of two":   func(p *Params) { p.Avg++ },
	} {
		p := Default()
		change(&p)
		if p.Validate() == nil {
			t.Errorf("%s: %+v was taken", name, p)
		}
		if _, err := NewSplitter(p); err == nil {
			t.Errorf("%s: a splitter was made", name)
		}
	}
}

type refList struct {
	_    struct{} `cbor:",toarray"`
	Refs []Ref
}

func readList(b []byte) ([]Ref, error) {
	r := frame.NewReader(b)
	r.Struct(1)
	refs, err := ReadRefs(r, 100)
	if err != nil {
		return nil, err
	}
	return refs, r.Close()
}

func TestReadRefsReadsWhatMarshalWrites(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var want []Ref
		for range rapid.IntRange(0, 100).Draw(t, "n") {
			r := Ref{Size: rapid.Int64Range(1, MaxSize).Draw(t, "size")}
			if rapid.IntRange(0, 3).Draw(t, "hole") > 0 {
				r.ID = digest.Of([]byte{byte(r.Size)})
			}
			want = Append(want, r)
		}
		b, err := frame.Marshal(&refList{Refs: want})
		if err != nil {
			t.Fatal(err)
		}
		got, err := readList(b)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, cmp.AllowUnexported(Ref{})); d != "" {
			t.Fatal(d)
		}
	})
}

func TestReadRefsRefuses(t *testing.T) {
	id := digest.Of([]byte("x"))
	for name, refs := range map[string][]Ref{
		"a chunk of nothing":      {{ID: id}},
		"a chunk above the bound": {{ID: id, Size: MaxSize + 1}},
		"a negative size":         {{ID: id, Size: -1}},
		"a hole of nothing":       {{}},
		"a hole above the bound":  {{Size: MaxHole + 1}},
		"a hole after a hole":     {{Size: 1}, {Size: 1}},
		"too many":                make([]Ref, 101),
	} {
		b, err := frame.Marshal(&refList{Refs: refs})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := readList(b); !errors.Is(err, frame.ErrDamaged) {
			t.Errorf("%s: read as %v, %v", name, got, err)
		}
	}
}

func BenchmarkSplitter(b *testing.B) {
	s := splitter(b)
	data := noise(8, 32<<20)
	r := bytes.NewReader(nil)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		r.Reset(data)
		s.Reset(r)
		for {
			if _, err := s.Next(); err != nil {
				break
			}
		}
	}
}
