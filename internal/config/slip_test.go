package config

import (
	"strings"
	"testing"
)

// TestSlips checks that common YAML mistakes are reported with their line and
// a correction.
func TestSlips(t *testing.T) {
	const top = "version: 1\nstore: s3://b/p?region=eu-west-1\ndata: /srv/nf\npublic: [tls://c:4222]\n"
	for _, tt := range []struct{ text, want string }{
		{"channels:\n\tpackage:\n\t\tsource: /srv/p\n", "f:6:1: a tab indents this line: YAML wants spaces"},
		{"channels:\n  package:\n  \tsource: /srv/p\n", "f:7:3: a tab indents this line"},
		{"channels: {}\n  package:\n    source: /srv/p\n", "f:5:11: {} says that there are no entries, and entries follow: write channels: alone"},
		{"sites: {}\n  # berlin: {}\n  osaka:\n    domain: x\n", "f:5:8: {} says that there are no entries"},
		{"sites: []   # none yet\n  - osaka\n", "f:5:8: [] says that there are no entries"},
		{"channels:\n  package:\n    source: \"D:\\packages\\new\"\n", "f:7:13: a backslash in double quotes begins an escape: write 'D:\\packages\\new' in single quotes"},
		{"channels:\n  package:\n    source: \"D:\\new\"\n", "f:7:13: channels.package.source: a backslash in double quotes begins an escape"},
		{"channels:\n  package:\n   source: /srv/p\n    links: refuse\n", "f:8:5: this line is indented by 4, and no key before it by that much: write 0 or 2 or 3 spaces"},
		{"channels:\n  package:\n      source: /srv/p\n    links: refuse\n", "f:8:5: this line is indented by 4"},
		{"channels:\n  package\n    source: /srv/p\n", "f:6:1: no colon follows \"package\": write package:"},
		{"channels:\n  package:\n    source:/srv/p\n    links: refuse\n", "f:7:11: no space follows the colon: write source: /srv/p"},
		{"channels:\n  package:\n    source: @x\n", "f:7:13: a text cannot begin with @: write '@x' in single quotes"},
		{"  channels:\n  package:\n", "f:5:3: this line is indented by 2, and no key before it by that much: write 0 spaces"},
	} {
		_, err := Parse("f", []byte(top+tt.text))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q\n  gives %v\n  want  %s", tt.text, err, tt.want)
		}
	}
	// Valid input must not be reported.
	for _, right := range []string{"channels:\n  package:\n    source: 'D:\\new'\n", "channels:\n  package:\n    source: \"D:\\\\new\"\n"} {
		if _, err := Parse("f", []byte(top+right)); err != nil {
			t.Errorf("%q: %v", right, err)
		}
	}
}
