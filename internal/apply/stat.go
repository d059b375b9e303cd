package apply

import (
	"fmt"
	"io"

	"nightferry/internal/scan"
)

// sameStat reports whether two stats of one name show that its bytes are unchanged. Inode number and change time
// count only if the file system keeps them stable.
func (t *targetDir) sameStat(a, b scan.Stat) bool {
	if !t.keeps.Inodes || t.o.IgnoreInode {
		a.ID, a.CTime = b.ID, b.CTime
	}
	return a == b
}

// looksSame reports whether a file's size and modification time are unchanged since its bytes were known.
func looksSame(a, b scan.Stat) bool { return a.Size == b.Size && a.MTime == b.MTime }

// reportRestated reports why files are read although looksSame is true.
func (s *site) reportRestated(changes []change, unknown []int32) {
	var files, bytes int64
	for _, i := range unknown {
		if changes[i].restated {
			files++
			bytes += changes[i].foundStat().Size
		}
	}
	if files > 0 {
		s.report.emitRetry(fmt.Errorf("%d files of %d bytes have the size and time that they had, but another change time, inode number or mode, as after a restore or a change of labels: their bytes are read again", files, bytes))
	}
}

// limited reads at the rate that Options.Limit allows.
type limited struct {
	r     io.Reader
	limit func(n int) error
}

func (l *limited) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if n > 0 {
		if lerr := l.limit(n); lerr != nil {
			return n, lerr
		}
	}
	return n, err
}
