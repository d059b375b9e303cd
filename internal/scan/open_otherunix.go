//go:build unix && !linux

package scan

import (
	"io/fs"
	"os"

	"nightferry/internal/durable"
)

// StatFile stats an open file. If it returns the same before and after the
// bytes are read, the file did not change meanwhile, as far as this system's
// portable stat shows changes.
func StatFile(f *os.File) (Opened, error) {
	info, err := f.Stat()
	if err != nil {
		return Opened{}, err
	}
	o := Opened{Kind: Special, Stat: Stat{Size: info.Size(), MTime: durable.Nanoseconds(info.ModTime()), Mode: unixMode(info)}}
	if info.Mode()&fs.ModeType == 0 {
		o.Kind = File
	}
	return o, nil
}

// MountOf returns "": the mounts of this system are unknown.
func MountOf(string) (string, error) { return "", nil }
