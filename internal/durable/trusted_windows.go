package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/windows"
)

// Rights in an access list that make another account a danger.
const (
	takeRights = windows.WRITE_DAC | windows.WRITE_OWNER | windows.DELETE | windows.GENERIC_ALL
	// Above: the right to delete or replace entries below. Adding entries does no harm: every volume's root lets
	// users do that.
	aboveRights = takeRights | 0x40 // FILE_DELETE_CHILD
	// The thing itself: FILE_WRITE_DATA or FILE_ADD_FILE, FILE_APPEND_DATA or FILE_ADD_SUBDIRECTORY, FILE_DELETE_CHILD.
	writeRights = takeRights | windows.GENERIC_WRITE | windows.FILE_WRITE_DATA | windows.FILE_APPEND_DATA | 0x40
	readRights  = windows.FILE_READ_DATA | windows.GENERIC_READ | windows.GENERIC_ALL | windows.WRITE_DAC | windows.WRITE_OWNER
)

// openTrusted opens path for reading after it has checked every folder above by its handle. No folder of the path,
// nor path itself, may be a link or another reparse point except a volume's mount point.
func openTrusted(path string, _ bool, keeper account) (*opened, error) {
	f, err := openJudged(path, windows.GENERIC_READ, nil)
	return &opened{f, keeper}, err
}

// openJudged also trusts the account keeper, unless it is nil, with the folder that holds path.
func openJudged(path string, access uint32, keeper *windows.SID) (*os.File, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	root := filepath.VolumeName(abs) + `\`
	at := root
	for _, name := range strings.Split(strings.Trim(strings.TrimPrefix(abs, root), `\`), `\`) {
		if name == "" {
			break // the root itself
		}
		f, err := openItself(at, windows.READ_CONTROL|windows.FILE_READ_ATTRIBUTES)
		if err == nil {
			k := keeper
			if filepath.Join(at, name) != abs {
				k = nil
			}
			err = errors.Join(judgeHandle(f, "folder", at, aboveRights, k), f.Close())
		}
		if err != nil {
			return nil, err
		}
		at = filepath.Join(at, name)
	}
	return openItself(at, access|windows.READ_CONTROL)
}

// openItself opens a file or folder without following a link.
func openItself(path string, access uint32) (*os.File, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	flags := uint32(windows.FILE_FLAG_BACKUP_SEMANTICS | windows.FILE_FLAG_OPEN_REPARSE_POINT)
	if isVolumeMount(path, info) {
		flags &^= windows.FILE_FLAG_OPEN_REPARSE_POINT
	}
	p, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return nil, err
	}
	h, err := windows.CreateFile(p, access, shareAll, nil, windows.OPEN_EXISTING, flags, 0)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", path, err)
	}
	f := os.NewFile(uintptr(h), path)
	var now windows.ByHandleFileInformation
	if err = windows.GetFileInformationByHandle(h, &now); err == nil && now.FileAttributes&windows.FILE_ATTRIBUTE_REPARSE_POINT != 0 {
		if info, lerr := os.Lstat(path); lerr != nil || isLink(info) {
			err = fmt.Errorf("%w at %q: name the link's target instead", ErrLink, path)
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// ReadOwned reads a file of at most limit bytes and returns its owner. A service's account may own the file and its
// folder. Everything above is checked as in ReadTrusted.
func ReadOwned(path string, limit int64) (_ []byte, owner *windows.SID, err error) {
	f, err := openItself(path, windows.GENERIC_READ|windows.READ_CONTROL)
	if err != nil {
		return nil, nil, wrap("read", path, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if owner, _, err = securityOf(f); err != nil {
		return nil, nil, wrap("read", path, err)
	}
	judged, err := openJudged(path, windows.FILE_READ_ATTRIBUTES, owner)
	if err != nil {
		return nil, nil, wrap("read", path, err)
	}
	a, aerr := f.Stat()
	b, berr := judged.Stat()
	if err := errors.Join(aerr, berr, judged.Close()); err != nil {
		return nil, nil, wrap("read", path, err)
	}
	if !os.SameFile(a, b) {
		return nil, nil, fmt.Errorf("read %q: it was replaced while it was opened: try again", path)
	}
	if err := judgeHandle(f, "it", "", writeRights, owner); err != nil {
		return nil, nil, wrap("read", path, err)
	}
	text, err := io.ReadAll(io.LimitReader(f, limit))
	return text, owner, wrap("read", path, err)
}

func judgeLast(f *opened) error { return judgeHandle(f.File, "it", "", writeRights, f.keeper) }

func judgePrivate(f *opened) error {
	owner, dacl, err := securityOf(f.File)
	if err != nil {
		return err
	}
	who, err := anyWith(dacl, readRights, func(sid *windows.SID) bool {
		return !sid.Equals(owner) && !sid.IsWellKnown(windows.WinCreatorOwnerRightsSid) && !Trusts(sid)
	})
	if err == nil && who != "" {
		err = fmt.Errorf("%w (%s): run icacls %q /inheritance:r /grant:r \"%%USERNAME%%:F\" SYSTEM:F Administrators:F, and replace the key if others may have copied it", ErrExposed, who, f.Name())
	}
	return err
}

// judgeHandle refuses an object that an untrusted account owns, or on which a large group has one of the rights.
// It also trusts keeper, unless that is nil.
func judgeHandle(f *os.File, what, at string, rights windows.ACCESS_MASK, keeper *windows.SID) error {
	if at != "" {
		what = fmt.Sprintf("%s %q", what, at)
	}
	owner, dacl, err := securityOf(f)
	if err != nil {
		return fmt.Errorf("read the access list of %s: %w", what, err)
	}
	if !Trusts(owner) && (keeper == nil || !owner.Equals(keeper)) {
		return fmt.Errorf("%w: %s belongs to %s (take it away, or give it to this account with takeown or icacls /setowner after a look at its content)", ErrUntrusted, what, accountName(owner))
	}
	// A right given to one account is the owner's decision; one given to a large group is mostly inherited from a
	// volume's root.
	who, err := anyWith(dacl, rights, isCrowd)
	if err == nil && who != "" {
		err = fmt.Errorf("%w: %s gives rights to %s (take them away with icacls, after a look at its content)", ErrUntrusted, what, who)
	}
	return err
}

func securityOf(f *os.File) (owner *windows.SID, dacl *windows.ACL, err error) {
	sd, err := windows.GetSecurityInfo(windows.Handle(f.Fd()), windows.SE_FILE_OBJECT, windows.OWNER_SECURITY_INFORMATION|windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		return nil, nil, err
	}
	if owner, _, err = sd.Owner(); err != nil {
		return nil, nil, err
	}
	dacl, _, err = sd.DACL()
	return owner, dacl, err
}

// isCrowd reports whether a SID stands for a large group of accounts.
func isCrowd(sid *windows.SID) bool {
	switch text := sid.String(); text {
	case "S-1-1-0", "S-1-5-2", "S-1-5-4", "S-1-5-7", "S-1-5-11", "S-1-5-32-545", "S-1-5-32-546": // Everyone, Network, Interactive, Anonymous, Authenticated Users, Users, Guests
		return true
	default: // Domain Users, Domain Guests, Domain Computers
		return strings.HasPrefix(text, "S-1-5-21-") && (strings.HasSuffix(text, "-513") || strings.HasSuffix(text, "-514") || strings.HasSuffix(text, "-515"))
	}
}

// anyWith returns the name of an account that has one of the rights and for which those is true; empty if there is
// none.
func anyWith(dacl *windows.ACL, rights windows.ACCESS_MASK, those func(*windows.SID) bool) (string, error) {
	if dacl == nil {
		return "everyone, since it has no access list", nil
	}
	for i := range uint32(dacl.AceCount) {
		var ace *windows.ACCESS_ALLOWED_ACE
		if err := windows.GetAce(dacl, i, &ace); err != nil {
			return "", err
		}
		const allowedCallback = 9 // ACCESS_ALLOWED_CALLBACK_ACE_TYPE
		if t := ace.Header.AceType; t != windows.ACCESS_ALLOWED_ACE_TYPE && t != allowedCallback ||
			ace.Header.AceFlags&windows.INHERIT_ONLY_ACE != 0 || ace.Mask&rights == 0 {
			continue
		}
		sid := (*windows.SID)(unsafe.Pointer(&ace.SidStart))
		if those(sid) {
			return accountName(sid), nil
		}
	}
	return "", nil
}

// trustedInstaller owns the files that Windows itself installed.
const trustedInstaller = "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464"

// Trusts reports whether an account may decide the behavior of this process: its own account, SYSTEM, and the
// administrators of the machine or of its domain.
func Trusts(sid *windows.SID) bool {
	if sid.IsWellKnown(windows.WinLocalSystemSid) || sid.IsWellKnown(windows.WinBuiltinAdministratorsSid) {
		return true
	}
	if me, err := windows.GetCurrentProcessToken().GetTokenUser(); err == nil && me.User.Sid.Equals(sid) {
		return true
	}
	text := sid.String()
	if text == trustedInstaller {
		return true
	}
	for _, rid := range []string{"-500", "-512", "-519"} { // Administrator, Domain Admins, Enterprise Admins
		if strings.HasPrefix(text, "S-1-5-21-") && strings.HasSuffix(text, rid) && strings.Count(text, "-") == 7 {
			return true
		}
	}
	return false
}

func accountName(sid *windows.SID) string {
	if name, domain, _, err := sid.LookupAccount(""); err == nil {
		return domain + `\` + name
	}
	return sid.String()
}

// judgeEntries refuses a folder that holds an entry of another account, or a link. It was put there before the
// folder was closed to others.
func judgeEntries(f *opened, dir string) error {
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		at := filepath.Join(dir, name)
		e, err := openItself(at, windows.READ_CONTROL|windows.FILE_READ_ATTRIBUTES)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		owner, _, err := securityOf(e)
		if err = errors.Join(err, e.Close()); err != nil {
			return fmt.Errorf("%q: %w", at, err)
		}
		if !Trusts(owner) && (f.keeper == nil || !owner.Equals(f.keeper)) {
			return fmt.Errorf("%w: %q belongs to %s (look at it, then remove it)", ErrUntrusted, at, accountName(owner))
		}
	}
	return nil
}

// closeFolder closes an existing folder to other accounts and takes ownership, if its owner is trusted.
func closeFolder(path string) error {
	f, err := openJudged(path, windows.WRITE_DAC|windows.FILE_READ_ATTRIBUTES, nil)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // nothing was written through it
	owner, _, err := securityOf(f)
	if err != nil {
		return err
	}
	if !Trusts(owner) {
		return fmt.Errorf("%w: it belongs to %s (take it away, or name another folder)", ErrUntrusted, accountName(owner))
	}
	if judgePrivate(&opened{File: f}) == nil {
		return nil
	}
	sd, err := closedFolder()
	if err != nil {
		return err
	}
	dacl, _, err := sd.DACL()
	if err != nil {
		return err
	}
	return windows.SetSecurityInfo(windows.Handle(f.Fd()), windows.SE_FILE_OBJECT,
		windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, nil, nil, dacl, nil)
}

// opened is a file or folder at the end of a path whose folders were checked.
type opened struct {
	*os.File
	keeper account
}

// account is a further account that is trusted; nil: none.
type account = *windows.SID

var noAccount account

// BecomeOwner does nothing: an administrator cannot take on another account. See Options.Keeper.
func BecomeOwner(string) error { return nil }

// keeperOf returns the ordinary account to which a folder, or an entry in it, belongs, for an administrator.
// [judgeEntries] then refuses entries of any other.
func keeperOf(dir string) account {
	if !windows.GetCurrentProcessToken().IsElevated() {
		return noAccount
	}
	paths := []string{dir}
	list, _ := os.ReadDir(dir) // judgeEntries reports its faults
	for _, e := range list {
		paths = append(paths, filepath.Join(dir, e.Name()))
	}
	for _, path := range paths {
		f, err := openItself(path, windows.READ_CONTROL|windows.FILE_READ_ATTRIBUTES)
		if err != nil {
			continue
		}
		owner, _, err := securityOf(f)
		if err = errors.Join(err, f.Close()); err == nil && !Trusts(owner) {
			return owner
		}
	}
	return noAccount
}
