package config

import (
	"strings"
	"testing"

	"nightferry/internal/doctest"
)

// TestDocumentedExamples checks that core check accepts every configuration
// in the documentation, and that an editor with the schema marks none. If a
// block has no version, the test adds the missing parts.
func TestDocumentedExamples(t *testing.T) {
	schema := compileSchema(t)
	whole, parts := 0, 0
	for _, b := range doctest.DocBlocks(t, "yaml") {
		text := b.Text
		switch {
		case strings.HasPrefix(strings.TrimSpace(text), "#"): // a line for an editor
			continue
		case strings.Contains(text, "version:"):
			whole++
		default:
			parts++
			rest := "version: 1\nstore: s3://b/p?region=x\ndata: /data\npublic: [tls://core:4222]\n"
			if !strings.Contains(text, "channels:") {
				rest += "channels: {package: {source: /src/package}, image: {source: /src/image}}\n"
			}
			text = rest + text
		}
		if _, err := Parse(b.Where, []byte(text)); err != nil {
			t.Errorf("%v\n%s", err, text)
		}
		if err := validate(t, schema, []byte(text)); err != nil {
			t.Errorf("%s: the schema refuses it: %v", b.Where, err)
		}
	}
	if whole < 2 || parts < 1 {
		t.Errorf("found %d whole examples and %d parts", whole, parts)
	}
}
