package durable

import (
	"os"
	"unsafe"

	"golang.org/x/sys/windows"
)

// createPrivate sets the rights when it creates the file, so that the file never has the folder's.
func createPrivate(path string) (*os.File, error) {
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return nil, err
	}
	me := user.User.Sid.String()
	// Protected from inheritance; full rights for the owner, SYSTEM, administrators.
	sd, err := windows.SecurityDescriptorFromString("O:" + me + "D:P(A;;FA;;;SY)(A;;FA;;;BA)(A;;FA;;;" + me + ")(A;;RC;;;OW)")
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

// closedFolder holds the owner and the access list of a private folder. It inherits nothing from above, and
// everything below inherits it. The list also limits the owner's rights (OW), so that an account that made an entry
// below earlier cannot open it again.
func closedFolder() (*windows.SECURITY_DESCRIPTOR, error) {
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return nil, err
	}
	me := user.User.Sid.String()
	return windows.SecurityDescriptorFromString("O:" + me + "D:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;FA;;;" + me + ")(A;OICI;RC;;;OW)")
}

// mkdirPrivate creates the folder with its list, so that it never has another.
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
