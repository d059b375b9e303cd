package apply

import (
	"bytes"
	"path"
	"runtime"
	"strings"

	"nightferry/internal/durable"
)

// refusesSparse reports whether a file must never be sparse on Windows: Hyper-V
// does not open such a disk image.
func refusesSparse(name string) bool {
	switch strings.ToLower(path.Ext(name)) {
	case ".vhd", ".vhdx", ".avhd", ".avhdx":
		return runtime.GOOS == "windows"
	}
	return false
}

// writeSparse writes b at offset at of a file of zeros and skips long runs of zeros. A chunk that starts in a hole
// of the source and ends in data therefore takes no more space here than there.
func writeSparse(f *durable.File, b []byte, at int64) error {
	for done := 0; done < len(b); {
		data, zeros := nextHole(b[done:], at+int64(done))
		if data > 0 {
			if _, err := f.WriteAt(b[done:done+data], at+int64(done)); err != nil {
				return err
			}
		}
		done += data + zeros
	}
	return nil
}

// nextHole returns the number of bytes before the first hole of at least minHole bytes, and the length of that
// hole, or 0 if there is none. Holes start and end at multiples of page in the file.
func nextHole(b []byte, at int64) (data, zeros int) {
	start := int(-at & (page - 1))
	for start+minHole <= len(b) {
		n := 0
		for start+n+page <= len(b) && bytes.Equal(b[start+n:start+n+page], zeroPage[:]) {
			n += page
		}
		if n >= minHole {
			return start, n
		}
		start += n + page
	}
	return len(b), 0
}

var zeroPage [page]byte // read only
