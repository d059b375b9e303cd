package apply

import (
	"path/filepath"

	"golang.org/x/sys/windows"

	"nightferry/internal/durable"
)

// hideFolder sets the attribute that hides a folder from ordinary listings.
func hideFolder(r *durable.Root, name string) error {
	p, err := windows.UTF16PtrFromString(filepath.Join(r.Dir(), filepath.FromSlash(name)))
	if err != nil {
		return err
	}
	// Ignore the error of a share that keeps no attributes.
	_ = windows.SetFileAttributes(p, windows.FILE_ATTRIBUTE_DIRECTORY|windows.FILE_ATTRIBUTE_HIDDEN)
	return nil
}
