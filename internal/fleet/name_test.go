package fleet

import (
	"strings"
	"testing"
)

// TestNames: a name becomes a subject, a folder and a key, on every system.
func TestNames(t *testing.T) {
	long := strings.Repeat("x", MaxName)
	for name, ok := range map[string]bool{
		"osaka": true, "a": true, "0": true, "san-jose-2": true, long: true, "com": true, "com10": true, "console": true, "lpt": true, "null": true,
		"": false, long + "x": false, "-a": false, "Osaka": false, "a.b": false, "a_b": false, "a b": false, "a/b": false, `a\b`: false, "*": false, ">": false, "ö": false, "a\x00": false,
		"con": false, "prn": false, "aux": false, "nul": false, "com0": false, "com9": false, "lpt1": false,
	} {
		if err := CheckName(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
		if err := CheckDomainName(name); (err == nil) != ok {
			t.Errorf("domain %q: %v", name, err)
		}
	}
	for _, name := range []string{"enroll", "core"} {
		if err := CheckDomainName(name); err == nil {
			t.Errorf("a domain may be called %q", name)
		}
		if err := CheckName(name); err != nil {
			t.Errorf("a site may not be called %q: %v", name, err)
		}
	}
}
