// Package service installs and runs a program as a system service: a systemd
// unit or a Windows service. It is independent of the program's task.
package service

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"nightferry/internal/durable"
)

// Config describes a service.
type Config struct {
	Name        string   // of the unit or service: letters, digits, - and _
	Display     string   // for people
	Description string   // one line
	Args        []string // of the program
	User        string   // the account of the service; empty: root, or LocalSystem
	Password    string   // of that account, on Windows only, and only if it needs one
	Reload      bool     // it reads its configuration again on SIGHUP
	LowPorts    bool     // it listens below port 1024
	Writable    []string // the only folders that it may write to, by systemd; empty: no limit
}

// ErrExists and ErrAbsent report whether a service of that name exists.
var (
	ErrExists = errors.New("there is a service of that name already")
	ErrAbsent = errors.New("there is no service of that name")
)

func (c *Config) check() error {
	if !regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$`).MatchString(c.Name) {
		return fmt.Errorf("service name %q: want letters, digits, - and _", c.Name)
	}
	for _, s := range slices.Concat([]string{c.Display, c.Description, c.User}, c.Args, c.Writable) {
		for _, r := range s {
			if r < ' ' {
				return fmt.Errorf("service %s: %q holds a control character", c.Name, s)
			}
		}
	}
	return nil
}

// executable returns this program's permanent path, which no other account
// can change: the service may run as a more powerful account.
func executable() (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	if exe, err = filepath.EvalSymlinks(exe); err == nil {
		err = durable.CheckTrusted(exe)
	}
	if err != nil {
		return "", fmt.Errorf("make a service of this program: %w", err)
	}
	return exe, nil
}
