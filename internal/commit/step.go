package commit

import (
	"encoding/binary"
	"fmt"

	"nightferry/internal/frame"
)

// Kind is one kind of step.
type Kind uint8

// The kinds of steps. Steps of the first half only clear the way. The second half starts only when all of them are
// done and the companion records that, because a cleared path may then hold something new.
const (
	Out    Kind = iota + 1 // first: move Path out to Slot
	Clear                  // first: remove the folder Path, which is empty by then
	Recase                 // first: move the folder in Slot to Path, its name in another case
	Mkdir                  // second, as all below: make the folder Path
	Place                  // move Slot to Path
	Touch                  // set mode and time of the file or folder Path
	Delete                 // delete the file or link Path, if it is still the one of Size and MTime
	Rmdir                  // remove the folder Path, if it is empty
)

func (k Kind) inFirstHalf() bool { return k <= Recase }

// Step is one change.
type Step struct {
	Kind   Kind
	Dir    bool // Out, Touch: a folder
	Linked bool // Out, Delete: a link or special file, whose size and time are not checked
	Over   bool // Place: Path may hold a file; the new file gets its rights
	Mode   uint16
	Path   string
	Slot   string // path of a moved file, or of the staged one
	Size   int64  // bytes; Out: negative for any size
	MTime  int64  // nanoseconds since 1970
}

// Steps yields steps in the order in which they must be made.
type Steps func(yield func(Step) error) error

func (s *Step) appendTo(b []byte) []byte {
	flags := byte(0)
	for i, set := range [...]bool{s.Dir, s.Linked, s.Over} {
		if set {
			flags |= 1 << i
		}
	}
	b = append(b, byte(s.Kind), flags)
	b = binary.AppendUvarint(b, uint64(s.Mode))
	b = binary.AppendVarint(b, s.Size)
	b = binary.AppendVarint(b, s.MTime)
	b = binary.AppendUvarint(b, uint64(len(s.Path)))
	b = append(b, s.Path...)
	return append(b, s.Slot...)
}

func parseStep(b []byte) (s Step, err error) {
	bad := fmt.Errorf("journal record: %w", frame.ErrDamaged)
	if len(b) < 2 || Kind(b[0]) < Out || Kind(b[0]) > Rmdir {
		return s, bad
	}
	s.Kind, s.Dir, s.Linked, s.Over = Kind(b[0]), b[1]&1 != 0, b[1]&2 != 0, b[1]&4 != 0
	b = b[2:]
	mode, n := binary.Uvarint(b)
	if n <= 0 {
		return s, bad
	}
	s.Mode, b = uint16(mode), b[n:]
	for _, v := range []*int64{&s.Size, &s.MTime} {
		if *v, n = binary.Varint(b); n <= 0 {
			return s, bad
		}
		b = b[n:]
	}
	l, n := binary.Uvarint(b)
	if n <= 0 || l > uint64(len(b)-n) {
		return s, bad
	}
	s.Path, s.Slot = string(b[n:n+int(l)]), string(b[n+int(l):])
	return s, nil
}
