package agent

import (
	"errors"

	"golang.org/x/sys/windows/registry"
)

// systemID returns the id that Windows gave to this installation.
func systemID() (string, error) {
	k, err := registry.OpenKey(registry.LOCAL_MACHINE, `SOFTWARE\Microsoft\Cryptography`, registry.QUERY_VALUE|registry.WOW64_64KEY)
	if err != nil {
		return "", err
	}
	id, _, err := k.GetStringValue("MachineGuid")
	return id, errors.Join(err, k.Close())
}
