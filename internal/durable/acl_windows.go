package durable

import (
	"path/filepath"

	"golang.org/x/sys/windows"
)

// legacy is a folder's own access list, as text. If two folders pass on different rights, their lists differ.
type legacy struct{ list string }

func security(r *Root, name string) (*windows.SECURITY_DESCRIPTOR, error) {
	return windows.GetNamedSecurityInfo(fullPath(r, name), windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION)
}

func fullPath(r *Root, name string) string { return filepath.Join(r.dir, filepath.FromSlash(name)) }

func legacyOf(r *Root, dir string) legacy {
	sd, err := security(r, dir)
	if err != nil {
		return legacy{}
	}
	return legacy{sd.String()}
}

// endow returns a function that sets the access list after the rename. A file that replaces another gets that one's
// list. A renamed file keeps the entries inherited from its old folder, so the function also makes it inherit again.
func endow(r *Root, _, to string, over bool, have, want legacy) (after func()) {
	sd, err := security(r, to)
	replaces := over && err == nil
	if !replaces && have == want {
		return nil
	}
	var acl *windows.ACL
	info := windows.SECURITY_INFORMATION(windows.DACL_SECURITY_INFORMATION | windows.UNPROTECTED_DACL_SECURITY_INFORMATION)
	if replaces {
		control, _, cerr := sd.Control()
		dacl, _, derr := sd.DACL()
		if cerr != nil || derr != nil || dacl == nil {
			return nil
		}
		acl = dacl
		if control&windows.SE_DACL_PROTECTED != 0 {
			info = windows.DACL_SECURITY_INFORMATION | windows.PROTECTED_DACL_SECURITY_INFORMATION
		}
	} else if acl, err = EmptyACL(); err != nil {
		return nil
	}
	return func() {
		_ = windows.SetNamedSecurityInfo(fullPath(r, to), windows.SE_FILE_OBJECT, info, nil, nil, acl, nil)
	}
}

// EmptyACL returns an access list without entries, for an object that shall inherit all of its rights. windows.ACLFromEntries
// cannot make one: it panics where SetEntriesInAcl returns no list for no entries, as Wine's does.
func EmptyACL() (*windows.ACL, error) {
	sd, err := windows.SecurityDescriptorFromString("D:")
	if err != nil {
		return nil, err
	}
	acl, _, err := sd.DACL()
	return acl, err
}
