package durable

import (
	"path/filepath"

	"golang.org/x/sys/windows"
)

// legacy is what a folder passes on: its own list, as text, which differs from
// another folder's where what is inherited does.
type legacy struct{ list string }

func (r *Root) security(name string) (*windows.SECURITY_DESCRIPTOR, error) {
	return windows.GetNamedSecurityInfo(r.path(name), windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION)
}

func (r *Root) path(name string) string { return filepath.Join(r.dir, filepath.FromSlash(name)) }

func (r *Root) legacyOf(dir string) legacy {
	sd, err := r.security(dir)
	if err != nil {
		return legacy{}
	}
	return legacy{sd.String()}
}

// endow keeps the list of the file to. A renamed file keeps what it inherited from
// its old folder, so the list is inherited anew when it is in place.
func (r *Root) endow(_, to string, over bool, have, want legacy) (after func()) {
	sd, err := r.security(to)
	replaces := over && err == nil
	if !replaces && have == want {
		return nil
	}
	acl := new(windows.ACL)
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
	} else if acl, err = windows.ACLFromEntries(nil, nil); err != nil {
		return nil
	}
	return func() { _ = windows.SetNamedSecurityInfo(r.path(to), windows.SE_FILE_OBJECT, info, nil, nil, acl, nil) }
}
