package record

import (
	"fmt"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/windows"

	"nightferry/internal/durable"
)

// access is the access list of a domain's folder: full rights for SYSTEM, the
// administrators and the Core's own account, and read rights for the group.
// Everything below inherits it; it inherits nothing from above.
type access struct{ sd *windows.SECURITY_DESCRIPTOR }

func resolveAccess(a Access) (access, error) {
	me, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return access{}, fmt.Errorf("find the Core's own account: %w", err)
	}
	var readers *windows.SID
	if a.Group != "" {
		if readers, err = windows.StringToSid(a.Group); err != nil {
			if readers, _, _, err = windows.LookupSID("", a.Group); err != nil {
				return access{}, fmt.Errorf("group %q: %w: create it, or name another", a.Group, err)
			}
		}
	}
	list := listFor(me.User.Sid, readers)
	sd, err := windows.SecurityDescriptorFromString(list)
	if err != nil {
		return access{}, fmt.Errorf("make the access list %s: %w", list, err)
	}
	return access{sd}, nil
}

// listFor returns the list in SDDL; readers may be nil. No other account has
// any right, not even to see names.
func listFor(core, readers *windows.SID) string {
	list := "D:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;FA;;;" + core.String() + ")"
	if readers != nil {
		list += "(A;OICI;0x1200a9;;;" + readers.String() + ")" // FILE_GENERIC_READ | FILE_GENERIC_EXECUTE
	}
	return list
}

func systemPath(root *durable.Root, name string) string {
	return filepath.Join(root.Dir(), filepath.FromSlash(name))
}

// mkdir creates the folder with its list, so that it never has another.
func (a access) mkdir(root *durable.Root, name string) error {
	p, err := windows.UTF16PtrFromString(systemPath(root, name))
	if err != nil {
		return fmt.Errorf("make folder %s: %w", name, err)
	}
	sa := windows.SecurityAttributes{SecurityDescriptor: a.sd}
	sa.Length = uint32(unsafe.Sizeof(sa))
	if err := windows.CreateDirectory(p, &sa); err != nil {
		return fmt.Errorf("make folder %s: %w", name, err)
	}
	return nil
}

// setAccess sets the list on a domain's folder; its content inherits the list.
func (a access) setAccess(root *durable.Root, name string, _, top bool) error {
	if _, err := root.Lstat(name); err != nil {
		return err
	}
	dacl, _, err := a.sd.DACL()
	if err != nil {
		return err
	}
	// Folders below the top have no entries of their own and inherit all.
	flags := windows.SECURITY_INFORMATION(windows.DACL_SECURITY_INFORMATION | windows.PROTECTED_DACL_SECURITY_INFORMATION)
	if !top {
		flags = windows.DACL_SECURITY_INFORMATION | windows.UNPROTECTED_DACL_SECURITY_INFORMATION
		empty, err := durable.EmptyACL()
		if err != nil {
			return err
		}
		dacl = empty
	}
	if err := windows.SetNamedSecurityInfo(systemPath(root, name), windows.SE_FILE_OBJECT, flags, nil, nil, dacl, nil); err != nil {
		return fmt.Errorf("set the access list of %s: %w", name, err)
	}
	return nil
}

// describeDifference describes how a folder's access differs from the configured one.
// Only the top has entries of its own.
func (a access) describeDifference(root *durable.Root, name string, top bool) (string, error) {
	sd, err := windows.GetNamedSecurityInfo(systemPath(root, name), windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		return "", fmt.Errorf("read the access list of %s: %w", name, err)
	}
	flags, got := splitSDDL(sd.String())
	_, want := splitSDDL(a.sd.String())
	switch {
	case top && (got != want || !strings.Contains(flags, "P")):
		return fmt.Sprintf("its access list is %s%s, it should be D:P%s", flags, got, want), nil
	case !top && (ownEntries(got) != "" || strings.Contains(flags, "P")):
		return fmt.Sprintf("it has entries of its own in its access list (%s%s), it should inherit all", flags, ownEntries(got)), nil
	}
	return "", nil
}

// splitSDDL returns the flags and the entries of an access list.
func splitSDDL(sddl string) (flags, entries string) {
	i := strings.IndexByte(sddl, '(')
	if i < 0 {
		return sddl, ""
	}
	return sddl[:i], sddl[i:]
}

// ownEntries returns the entries that are not inherited.
func ownEntries(entries string) string {
	var b strings.Builder
	for e := range strings.SplitAfterSeq(entries, ")") {
		if f := strings.Split(e, ";"); len(f) > 1 && !strings.Contains(f[1], "ID") {
			b.WriteString(e)
		}
	}
	return b.String()
}

// New files inherit the list of their folder, so inherit and seal do nothing.
func inheritDir(*durable.Root, string) error { return nil }

func inheritFile(*durable.Root, string) error { return nil }
