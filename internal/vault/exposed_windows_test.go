package vault

import (
	"errors"
	"path/filepath"
	"testing"

	"golang.org/x/sys/windows"

	"nightferry/internal/durable"
)

func TestExposedKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "master.key")
	if _, err := NewMasterFile(path); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadMaster(path, nil); err != nil {
		t.Errorf("a private file: %v", err)
	}
	sd, err := windows.SecurityDescriptorFromString("D:P(A;;FA;;;OW)(A;;FR;;;BU)") // Users may read it
	if err != nil {
		t.Fatal(err)
	}
	dacl, _, err := sd.DACL()
	if err != nil {
		t.Fatal(err)
	}
	if err := windows.SetNamedSecurityInfo(path, windows.SE_FILE_OBJECT,
		windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, nil, nil, dacl, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadMaster(path, nil); !errors.Is(err, durable.ErrExposed) {
		t.Errorf("a file that users may read: %v, want durable.ErrExposed", err)
	}
}
