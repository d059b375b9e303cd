package durable

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/windows"
)

// The rights that let somebody read a key, or give himself the right to.
const readRights = windows.FILE_READ_DATA | windows.GENERIC_READ | windows.GENERIC_ALL |
	windows.WRITE_DAC | windows.WRITE_OWNER

// Private refuses a key file that others can read: on Unix any permission bit
// of group or others, on Windows a right to read for anybody but the owner,
// SYSTEM and the administrators. The error is [ErrExposed] and names the
// remedy.
func Private(path string) error {
	sd, err := windows.GetNamedSecurityInfo(path, windows.SE_FILE_OBJECT,
		windows.OWNER_SECURITY_INFORMATION|windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		return wrap("check key file", path, err)
	}
	owner, _, err := sd.Owner()
	if err != nil {
		return wrap("check key file", path, err)
	}
	exposed := func(who string) error {
		return fmt.Errorf("check key file %q: %w (%s): run icacls %q /inheritance:r /grant:r \"%%USERNAME%%:F\" SYSTEM:F Administrators:F, and replace the key if others may have copied it",
			path, ErrExposed, who, path)
	}
	dacl, _, err := sd.DACL()
	if err != nil {
		return wrap("check key file", path, err)
	}
	if dacl == nil {
		return exposed("everyone: it has no access list")
	}
	trusted := []*windows.SID{owner}
	for _, kind := range []windows.WELL_KNOWN_SID_TYPE{windows.WinLocalSystemSid, windows.WinBuiltinAdministratorsSid, windows.WinCreatorOwnerRightsSid} {
		if sid, err := windows.CreateWellKnownSid(kind); err == nil {
			trusted = append(trusted, sid)
		}
	}
next:
	for i := range uint32(dacl.AceCount) {
		var ace *windows.ACCESS_ALLOWED_ACE
		if err := windows.GetAce(dacl, i, &ace); err != nil {
			return wrap("check key file", path, err)
		}
		if ace.Header.AceType != windows.ACCESS_ALLOWED_ACE_TYPE || ace.Header.AceFlags&windows.INHERIT_ONLY_ACE != 0 ||
			ace.Mask&readRights == 0 {
			continue
		}
		sid := (*windows.SID)(unsafe.Pointer(&ace.SidStart))
		for _, t := range trusted {
			if sid.Equals(t) {
				continue next
			}
		}
		return exposed(sid.String())
	}
	return nil
}

// createPrivate names the rights when it creates the file, so that there is no
// moment in which it has the folder's.
func createPrivate(path string) (*os.File, error) {
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return nil, err
	}
	me := user.User.Sid.String()
	// Protected from inheritance; full rights for the owner, SYSTEM, administrators.
	sd, err := windows.SecurityDescriptorFromString("O:" + me + "D:P(A;;FA;;;SY)(A;;FA;;;BA)(A;;FA;;;" + me + ")")
	if err != nil {
		return nil, err
	}
	p, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return nil, err
	}
	sa := windows.SecurityAttributes{SecurityDescriptor: sd}
	sa.Length = uint32(unsafe.Sizeof(sa))
	h, err := windows.CreateFile(p, windows.GENERIC_WRITE, 0, &sa, windows.CREATE_NEW, windows.FILE_ATTRIBUTE_NORMAL, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(h), path), nil
}

// closedFolder is the access list of a private folder: not inherited from
// above, and inherited by all below.
func closedFolder() (*windows.SECURITY_DESCRIPTOR, error) {
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return nil, err
	}
	return windows.SecurityDescriptorFromString("D:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;FA;;;" + user.User.Sid.String() + ")")
}

// mkdirPrivate makes the folder with its list, so that it never has another.
func mkdirPrivate(path string) error {
	sd, err := closedFolder()
	if err != nil {
		return err
	}
	p, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return err
	}
	sa := windows.SecurityAttributes{SecurityDescriptor: sd}
	sa.Length = uint32(unsafe.Sizeof(sa))
	return windows.CreateDirectory(p, &sa)
}

func closeFolder(path string) error {
	sd, err := closedFolder()
	if err != nil {
		return err
	}
	dacl, _, err := sd.DACL()
	if err != nil {
		return err
	}
	return windows.SetNamedSecurityInfo(path, windows.SE_FILE_OBJECT,
		windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, nil, nil, dacl, nil)
}
