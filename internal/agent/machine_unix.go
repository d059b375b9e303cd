//go:build unix

package agent

import (
	"errors"
	"os"
	"strings"
)

// systemID returns the id that systemd or D-Bus gave to this installation of the system.
func systemID() (string, error) {
	var errs []error
	for _, name := range []string{"/etc/machine-id", "/var/lib/dbus/machine-id"} {
		b, err := os.ReadFile(name)
		if id := strings.TrimSpace(string(b)); err == nil && len(id) == 32 {
			return id, nil
		}
		errs = append(errs, err)
	}
	return "", errors.Join(errs...)
}
