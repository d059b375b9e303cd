package scan

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"math"
	"path/filepath"
	"strings"
	"syscall"
	"unicode/utf8"
	"unsafe"

	"golang.org/x/sys/windows"
)

// lister reads folders in batches that hold everything about each file, so
// that no file is opened.
type lister struct{ root string } // in the \\?\ form, which has no length limit

// scratch is one goroutine's reused memory; words keep it aligned.
type scratch struct {
	words []uint64
	name  []uint16
	path  []byte
}

func openLister(dir string) (*lister, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	return &lister{root: longPath(abs)}, nil
}

// longPath gives an absolute path the prefix that lifts the limit of 260
// characters: C:\x becomes \\?\C:\x and \\server\share \\?\UNC\server\share.
func longPath(abs string) string {
	switch {
	case strings.HasPrefix(abs, `\\?\`), strings.HasPrefix(abs, `\\.\`):
		return abs
	case strings.HasPrefix(abs, `\\`):
		return `\\?\UNC\` + abs[2:]
	}
	return `\\?\` + abs
}

func (l *lister) close() error { return nil }

func (l *lister) fullPath(dir string) string {
	if dir == "" {
		return l.root
	}
	return strings.TrimSuffix(l.root, `\`) + `\` + strings.ReplaceAll(dir, "/", `\`)
}

func openDir(path string, flags uint32) (windows.Handle, error) {
	p, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return 0, err
	}
	return windows.CreateFile(p, windows.FILE_LIST_DIRECTORY|windows.FILE_READ_ATTRIBUTES,
		windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE|windows.FILE_SHARE_DELETE, nil,
		windows.OPEN_EXISTING, windows.FILE_FLAG_BACKUP_SEMANTICS|flags, 0)
}

// reparseNameSurrogate marks the reparse tags of links to another name.
const reparseNameSurrogate = 0x20000000

var errReplaced = errors.New("it was replaced by a link while the folder was read")

// openFolder opens a folder. It fails if a link has replaced the folder since the
// walk listed it. Other reparse points (deduplicated, cloud files) are opened
// normally.
func (l *lister) openFolder(dir string) (windows.Handle, error) {
	if dir == "" {
		return openDir(l.root, 0)
	}
	full := l.fullPath(dir)
	h, err := openDir(full, windows.FILE_FLAG_OPEN_REPARSE_POINT)
	if err != nil {
		return 0, err
	}
	var tag struct{ Attributes, Tag uint32 }
	err = windows.GetFileInformationByHandleEx(h, windows.FileAttributeTagInfo, (*byte)(unsafe.Pointer(&tag)), uint32(unsafe.Sizeof(tag)))
	if err != nil || tag.Attributes&windows.FILE_ATTRIBUTE_REPARSE_POINT == 0 {
		return h, nil // a file system without reparse points may not support the call
	}
	if err := windows.CloseHandle(h); err != nil {
		return 0, err
	}
	if tag.Tag&reparseNameSurrogate != 0 {
		return 0, errReplaced
	}
	return openDir(full, 0)
}

func (l *lister) listFolder(dir string, skip func(string, bool) bool, s *scratch) (items []Item, _ volume, err error) {
	h, err := l.openFolder(dir)
	if err != nil {
		return nil, volume{}, err
	}
	defer func() { err = errors.Join(err, windows.CloseHandle(h)) }()
	if s.words == nil {
		s.words = make([]uint64, 8<<10)
	}
	buf := unsafe.Slice((*byte)(unsafe.Pointer(&s.words[0])), len(s.words)*8)
	for first := true; ; first = false {
		err := windows.GetFileInformationByHandleEx(h, windows.FileIdBothDirectoryInfo, &buf[0], uint32(len(buf)))
		switch {
		case err == nil:
		case errors.Is(err, windows.ERROR_NO_MORE_FILES), first && errors.Is(err, windows.ERROR_FILE_NOT_FOUND):
			return items, volume{}, nil
		case first && (errors.Is(err, windows.ERROR_INVALID_PARAMETER) || errors.Is(err, windows.ERROR_INVALID_FUNCTION) ||
			errors.Is(err, windows.ERROR_NOT_SUPPORTED) || errors.Is(err, windows.ERROR_INVALID_LEVEL)):
			items, err = listPortable(l.fullPath(dir), dir, skip)
			return items, volume{}, err
		default:
			return nil, volume{}, err
		}
		for rest := buf; ; {
			it, ok := s.decodeItem(rest, dir)
			if ok && (skip == nil || !skip(it.Path, it.Kind == Dir)) {
				items = append(items, it)
			}
			next := binary.LittleEndian.Uint32(rest)
			if next == 0 {
				break
			}
			rest = rest[next:]
		}
	}
}

// decodeItem decodes one FILE_ID_BOTH_DIR_INFO.
func (s *scratch) decodeItem(b []byte, dir string) (Item, bool) {
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) }
	u64 := func(at int) uint64 { return binary.LittleEndian.Uint64(b[at:]) }
	const nameAt = 104
	s.name = s.name[:0]
	for i := range int(u32(60)) / 2 {
		s.name = append(s.name, binary.LittleEndian.Uint16(b[nameAt+2*i:]))
	}
	if len(s.name) == 1 && s.name[0] == '.' || len(s.name) == 2 && s.name[0] == '.' && s.name[1] == '.' {
		return Item{}, false
	}
	s.path = s.path[:0]
	if dir != "" {
		s.path = append(append(s.path, dir...), '/')
	}
	it := Item{Path: string(appendName(s.path, s.name)), Kind: File}
	it.Stat = Stat{Size: int64(u64(40)), MTime: unixNano(u64(24)), CTime: changeTime(u64(32)), ID: u64(96)}
	attrs, tag := u32(56), u32(64) // for a reparse point EaSize holds the tag
	switch {
	case attrs&windows.FILE_ATTRIBUTE_REPARSE_POINT != 0 && tag&reparseNameSurrogate != 0:
		it.Kind = Link
	case attrs&windows.FILE_ATTRIBUTE_DIRECTORY != 0:
		it.Kind = Dir
	case attrs&windows.FILE_ATTRIBUTE_DEVICE != 0:
		it.Kind = Special
	}
	if it.Kind != File {
		it.Stat.Size = 0
	}
	return it, true
}

// appendName adds a name as UTF-8. Invalid UTF-16 (a lone surrogate) takes
// the slow path, which keeps the name distinct from all others.
func appendName(path []byte, name []uint16) []byte {
	for _, c := range name {
		if c >= 0xd800 && c < 0xe000 {
			return append(path, syscall.UTF16ToString(name)...)
		}
	}
	for _, c := range name {
		path = utf8.AppendRune(path, rune(c))
	}
	return path
}

// unixNano converts 100 ns since 1601 to ns since 1970, limited to the range
// of int64, as durable.Nanoseconds does.
func unixNano(t uint64) int64 {
	const since = 116444736000000000 // 1970
	switch {
	case t < since+math.MinInt64/1_000_000_000*10_000_000:
		return math.MinInt64
	case t >= since+math.MaxInt64/1_000_000_000*10_000_000:
		return math.MaxInt64
	}
	return (int64(t) - since) * 100
}

// changeTime converts a change time by unixNano; 0 stays "unknown".
func changeTime(t uint64) int64 {
	if t == 0 {
		return 0
	}
	return unixNano(t)
}

// Windows has no permission bits.
func unixMode(fs.FileInfo) uint16 { return 0 }
