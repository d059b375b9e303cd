package core_test

import (
	"fmt"
	"strings"
	"testing"
)

// TestPathsThatBeginSo: a name that no file has, and that paths begin with, is answered with these, each folder once. A folder is
// passed over as one, however many files it has, and beside names that sort next to it.
func TestPathsThatBeginSo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for n := range 40 {
		w.write(fmt.Sprintf("net/intel/deep/e%02d.sys", n), "x")
	}
	for _, name := range []string{"net/intel-old/a.sys", "net/intel.txt", "net/zz/b.sys", "netz.txt", "other.txt"} {
		w.write(name, "x")
	}
	w.publish("package")
	for name, want := range map[string]string{
		"net/intel/d":      `, such as "net/intel/deep/"`,
		"net/int":          `, such as "net/intel/", "net/intel-old/", "net/intel.txt"`,
		"net":              `is a folder of "package": name a file in it, such as "net/intel/", "net/intel-old/", "net/intel.txt", "net/zz/"`,
		"ne":               `, such as "net/", "netz.txt"`,
		"net/intel/deep/e": `, such as "net/intel/deep/e00.sys", "net/intel/deep/e01.sys", "net/intel/deep/e02.sys", "net/intel/deep/e03.sys", "net/intel/deep/e04.sys", "net/intel/deep/e05.sys", "net/intel/deep/e06.sys", "net/intel/deep/e07.sys", "net/intel/deep/e08.sys", "net/intel/deep/e09.sys" and others`,
	} {
		_, err := w.core.Query.Where(t.Context(), "package", name)
		if err == nil || !strings.HasSuffix(strings.TrimSuffix(err.Error(), ": file does not exist"), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
