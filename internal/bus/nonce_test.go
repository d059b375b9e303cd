package bus

import (
	"strings"
	"testing"
)

// TestOnlyNoncesAreSigned checks that a server gets signatures of nonces only, never of a possible message: messages
// contain binary bytes.
func TestOnlyNoncesAreSigned(t *testing.T) {
	for _, nonce := range []string{"Xh3_k-9dPqYt0Aw", "PXoWU7zWAMt75FY=", "a+/b"} {
		if !isNonce([]byte(nonce)) {
			t.Errorf("%q is not signed", nonce)
		}
	}
	for _, text := range []string{"", "nfbeat\x00\x01\x85", "a b", "é", strings.Repeat("a", 65)} {
		if isNonce([]byte(text)) {
			t.Errorf("%q is signed", text)
		}
	}
}
