package record

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/windows"
)

func TestEachDomainHasItsReaders(t *testing.T) {
	l, err := Open(filepath.Join(t.TempDir(), "logs"))
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	const users = "S-1-5-32-545"
	domains := map[string]Access{"apac": {Group: users}, "emea": {}}
	changed, err := l.Prepare(domains)
	must(t, err)
	same(t, "changed", changed, map[string]string{})
	write(t, l, at("apac", "osaka", day, 1))
	write(t, l, at("emea", "paris", day, 2))
	list := func(name string) string {
		sd, err := windows.GetNamedSecurityInfo(system(l.root, name), windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION)
		must(t, err)
		return sd.String()
	}
	// Everybody, the users, the authenticated ones.
	readers := func(name string) bool {
		s := list(name)
		return strings.Contains(s, ";WD)") || strings.Contains(s, ";BU)") || strings.Contains(s, ";AU)") || strings.Contains(s, users)
	}
	if readers("emea") {
		t.Fatalf("somebody else can read: %s", list("emea"))
	}
	if windows.NewLazySystemDLL("ntdll.dll").NewProc("wine_get_version").Find() == nil {
		t.Skip("Wine keeps an access list as the mode bits of Unix: a group's right, and what is inherited, show on Windows only")
	}
	if log := at("apac", "osaka", day, 1).Path(); !readers("apac") || !readers(log) {
		t.Fatalf("the domain's readers cannot read: %s, %s", list("apac"), list(log))
	}
	if log := at("emea", "paris", day, 2).Path(); readers(log) {
		t.Fatalf("somebody else can read: %s", list(log))
	}
	if changed, err := l.Prepare(domains); err != nil || len(changed) != 0 {
		t.Fatalf("prepared again: %v, %v", changed, err)
	}
	changed, err = l.Prepare(map[string]Access{"apac": {}, "emea": {}})
	must(t, err)
	if len(changed) != 1 || changed["apac"] == "" {
		t.Fatalf("a folder whose access was changed: %v", changed)
	}
	must(t, l.Repair("apac", Access{}))
	if changed, err := l.Prepare(map[string]Access{"apac": {}, "emea": {}}); err != nil || len(changed) != 0 {
		t.Fatalf("after the repair: %v, %v", changed, err)
	}
}
