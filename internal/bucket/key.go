package bucket

import (
	"io/fs"
	"strings"
)

// checkKey refuses keys that are not plain slash-separated names. All kinds of stores have the same rule, so that a
// repository can be copied from one kind to another, and no key leaves a directory store's folder.
func checkKey(op, key string) error {
	bad := !fs.ValidPath(key) || key == "." || len(key) > 512 || key == tempDir || strings.HasPrefix(key, tempDir+"/")
	for i := 0; i < len(key) && !bad; i++ {
		c := key[i]
		bad = c < 0x20 || c > 0x7e || strings.IndexByte(`\:*?"<>|`, c) >= 0
	}
	if bad {
		return &Error{Op: op, Key: quoteKey(key), Kind: KindOther, Err: errBadKey}
	}
	return nil
}

// quoteKey makes a key that failed the check safe to print.
func quoteKey(key string) string {
	if len(key) > 64 {
		key = key[:64] + "…"
	}
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f {
			return '?'
		}
		return r
	}, key)
}
