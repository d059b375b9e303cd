// Package testbed opens stores for tests, counts calls to them, and breaks them on purpose.
//
// It links no server: s3test, bustest, mailtest, proxytest and disktest start those, so that the tests of a room link
// only the servers that they use. No released program imports any of them.
package testbed

import (
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"nightferry/internal/bucket"
)

// OpenStore calls bucket.Open and fails the test on an error. The store is closed when the test ends.
func OpenStore(t testing.TB, url string, o bucket.Options) bucket.Store {
	t.Helper()
	s, err := bucket.Open(t.Context(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bucket.Close(s); err != nil {
			t.Error(err)
		}
	})
	return s
}

// FileURL returns the store URL of a local folder.
func FileURL(dir string) string {
	dir = filepath.ToSlash(dir)
	if !strings.HasPrefix(dir, "/") {
		dir = "/" + dir // file:///C:/dir
	}
	return (&url.URL{Scheme: "file", Path: dir}).String()
}

// FreeAddr returns 127.0.0.1:PORT with a port that was free a moment ago, for a server in another process.
func FreeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
