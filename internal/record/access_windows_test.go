package record

import (
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

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
		sd, err := windows.GetNamedSecurityInfo(systemPath(l.root, name), windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION)
		must(t, err)
		return sd.String()
	}
	// Everyone, Users, Authenticated Users.
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

// TestTheListThatIsBuilt checks the requested list, entry by entry, as
// Windows parses it. Wine shows no more of an access list than this.
func TestTheListThatIsBuilt(t *testing.T) {
	sid := func(text string) *windows.SID {
		s, err := windows.StringToSid(text)
		must(t, err)
		return s
	}
	core, readers := sid("S-1-5-21-1-2-3-1001"), sid("S-1-5-21-1-2-3-2002")
	const all, read = windows.STANDARD_RIGHTS_REQUIRED | windows.SYNCHRONIZE | 0x1ff, windows.FILE_GENERIC_READ | windows.FILE_GENERIC_EXECUTE
	rights := func(who *windows.SID) map[string]windows.ACCESS_MASK {
		sd, err := windows.SecurityDescriptorFromString(listFor(core, who))
		must(t, err)
		control, _, err := sd.Control()
		must(t, err)
		if control&windows.SE_DACL_PROTECTED == 0 {
			t.Error("it inherits from above")
		}
		dacl, _, err := sd.DACL()
		must(t, err)
		out := map[string]windows.ACCESS_MASK{}
		for i := range uint32(dacl.AceCount) {
			var ace *windows.ACCESS_ALLOWED_ACE
			must(t, windows.GetAce(dacl, i, &ace))
			if ace.Header.AceType != windows.ACCESS_ALLOWED_ACE_TYPE || ace.Header.AceFlags != windows.OBJECT_INHERIT_ACE|windows.CONTAINER_INHERIT_ACE {
				t.Errorf("entry %d: type %d, flags %x", i, ace.Header.AceType, ace.Header.AceFlags)
			}
			out[(*windows.SID)(unsafe.Pointer(&ace.SidStart)).String()] = ace.Mask
		}
		return out
	}
	want := map[string]windows.ACCESS_MASK{"S-1-5-18": all, "S-1-5-32-544": all, core.String(): all}
	same(t, "without readers", rights(nil), want)
	want[readers.String()] = read
	same(t, "with readers", rights(readers), want)
	if read&(windows.FILE_WRITE_DATA|windows.FILE_APPEND_DATA|windows.DELETE|windows.WRITE_DAC|windows.WRITE_OWNER) != 0 {
		t.Error("a reader may write")
	}
}
