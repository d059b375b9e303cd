package manifest

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// StateDir is the folder for nightferry's own files at the top of a target;
// no release may contain it.
const StateDir = ".nightferry"

// Bounds of a path.
const (
	MaxPath = 4096 // bytes
	MaxName = 255  // bytes and UTF-16 units of one component
)

// PathError reports why a path cannot be part of a release.
type PathError struct {
	Path string
	Why  string
}

func (e *PathError) Error() string { return fmt.Sprintf("name %q: %s", e.Path, e.Why) }

// ComparePaths orders paths so that a folder's subtree directly follows it:
// byte order, with the slash before every other byte. A walk that sorts the
// names of each folder visits paths in this order.
func ComparePaths(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if x, y := a[i], b[i]; x != y {
			switch {
			case x == '/':
				return -1
			case y == '/':
				return 1
			case x < y:
				return -1
			}
			return 1
		}
	}
	return len(a) - len(b)
}

// CheckPath refuses a path that could leave a target, or that cannot be
// created identically on every site. portable also refuses names that Windows
// cannot store. It is the default, and Windows sites accept only portable
// releases.
func CheckPath(p string, portable bool) error {
	bad := func(why string) error { return &PathError{Path: p, Why: why} }
	switch {
	case p == "":
		return bad("is empty")
	case len(p) > MaxPath:
		return bad(fmt.Sprintf("has %d bytes, at most %d are allowed", len(p), MaxPath))
	case !utf8.ValidString(p):
		return bad("is not valid UTF-8")
	case p[0] == '/':
		return bad("is absolute")
	}
	for rest, first := p, true; ; first = false {
		name, more, found := strings.Cut(rest, "/")
		if why := checkName(name, portable); why != "" {
			return bad(why)
		}
		if first && aliasesState(name) {
			return bad("is reserved for nightferry's own state")
		}
		if !found {
			return nil
		}
		rest = more
	}
}

// aliasesState reports whether name means StateDir on some file system: in
// another case, with the trailing characters that Windows drops, or as the
// short name that NTFS may assign (NIGHTF~1, or NI and a hash of four digits
// if four such names are taken).
func aliasesState(name string) bool {
	name = strings.TrimRight(name, ". ")
	if strings.EqualFold(name, StateDir) {
		return true
	}
	short, number, ok := strings.Cut(strings.ToUpper(name), "~")
	if !ok || number == "" || strings.Trim(number, "0123456789") != "" {
		return false
	}
	return strings.HasPrefix("NIGHTF", short) && len(short) >= 2 ||
		len(short) == 6 && short[:2] == "NI" && strings.Trim(short[2:], "0123456789ABCDEF") == ""
}

func checkName(name string, portable bool) string {
	switch {
	case name == "":
		return "has an empty component"
	case name == "." || name == "..":
		return "has a component \".\" or \"..\""
	case len(name) > MaxName:
		return fmt.Sprintf("has a component of %d bytes, at most %d are allowed", len(name), MaxName)
	}
	for i := range len(name) {
		switch c := name[i]; {
		// C1 controls are C2 80 to C2 9F; some terminals interpret them too.
		case c < 0x20 || c == 0x7f || c == 0xc2 && i+1 < len(name) && name[i+1] < 0xa0:
			return "holds a control character"
		case portable && windowsForbids(c):
			return fmt.Sprintf("holds %q, which Windows does not allow", c)
		}
	}
	if !portable {
		return ""
	}
	if last := name[len(name)-1]; last == '.' || last == ' ' {
		return "has a component that ends in a dot or a space, which Windows drops"
	}
	if isReserved(name) {
		return "has a component that Windows reserves for a device"
	}
	return ""
}

func windowsForbids(c byte) bool {
	switch c {
	case '<', '>', ':', '"', '\\', '|', '?', '*':
		return true
	}
	return false
}

// isReserved reports whether Windows treats name as a device: CON, PRN, AUX,
// NUL, CONIN$, CONOUT$, COM0-9, LPT0-9 (superscript digits too), with any
// suffix after a dot (Microsoft, "Naming Files, Paths, and Namespaces").
func isReserved(name string) bool {
	if len(name) < 3 || !strings.ContainsRune("CPANLcpanl", rune(name[0])) {
		return false // most names end here
	}
	base, _, _ := strings.Cut(name, ".")
	if base = strings.TrimRight(base, " "); len(base) > len("CONOUT$") {
		return false
	}
	base = strings.ToUpper(base)
	switch base {
	case "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$":
		return true
	}
	if digit, ok := strings.CutPrefix(base, "COM"); ok || strings.HasPrefix(base, "LPT") {
		if !ok {
			digit = base[3:]
		}
		r := []rune(digit)
		return len(r) == 1 && (r[0] >= '0' && r[0] <= '9' || strings.ContainsRune("¹²³", r[0]))
	}
	return false
}

// Fold returns the form of a name by which a case-insensitive file system
// compares it: each UTF-16 unit in upper case, which matches NTFS's own table
// for all but a handful of letters.
func Fold(name string) string { return string(appendFold(nil, name)) }

func appendFold(b []byte, name string) []byte {
	for i := range len(name) {
		c := name[i]
		if c >= utf8.RuneSelf {
			return append(b, foldRunes(name[i:])...)
		}
		if 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		b = append(b, c)
	}
	return b
}

func foldRunes(name string) string {
	return strings.Map(func(r rune) rune {
		if utf16.RuneLen(r) != 1 {
			return r
		}
		return unicode.ToUpper(r)
	}, name)
}
