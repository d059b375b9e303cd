package repo

import (
	"fmt"
	"sync"
	"testing"

	"nightferry/internal/durable"
)

// TestMemoryNeverGoesBack checks that the saved memory has the highest numbers of all runs that end at the
// same time, each with its own memory.
func TestMemoryNeverGoesBack(t *testing.T) {
	path := t.TempDir()
	var runs sync.WaitGroup
	const many = 20
	for n := range uint64(many) {
		runs.Go(func() {
			dir, err := durable.Open(path, durable.Options{})
			if err != nil {
				t.Error(err)
				return
			}
			defer dir.Close()
			m := Memory{RepoHex: "aa", Trust: n % 7, TrustDoc: []byte{byte(n % 7)}, Halt: n, Heads: map[string]uint64{"package": many - n, fmt.Sprint(n): 1}}
			if err := SaveMemory(dir, m); err != nil {
				t.Error(err)
			}
		})
	}
	runs.Wait()
	dir, err := durable.Open(path, durable.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	m, err := LoadMemory(dir)
	if err != nil {
		t.Fatal(err)
	}
	if m.Trust != 6 || m.TrustDoc[0] != 6 || m.Halt != many-1 || m.Heads["package"] != many || len(m.Heads) != many+1 {
		t.Errorf("%+v", m)
	}
	if err := SaveMemory(dir, Memory{RepoHex: "bb"}); err == nil {
		t.Error("another repository's memory was accepted")
	}
}
