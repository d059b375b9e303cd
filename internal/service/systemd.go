//go:build !windows

package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"nightferry/internal/durable"
)

// Kind names the system's service manager.
const Kind = "systemd"

// unitDir is the folder of an administrator's units.
const unitDir = "/etc/systemd/system"

// Install writes the unit, enables it at boot and starts it.
func Install(ctx context.Context, c Config) error {
	if err := c.check(); err != nil {
		return err
	}
	exe, err := executable()
	if err != nil {
		return err
	}
	if err := write(unitDir, c, exe); err != nil {
		return err
	}
	err = systemctl(ctx, "daemon-reload")
	if err == nil {
		err = systemctl(ctx, "enable", "--now", c.Name+".service")
	}
	if err != nil { // leave nothing half-made for the next attempt
		return errors.Join(err, Uninstall(context.WithoutCancel(ctx), c.Name))
	}
	return nil
}

// write adds the unit to a folder that has no unit of that name.
func write(dir string, c Config, exe string) (err error) {
	root, err := durable.Open(dir, durable.Options{Trusted: true})
	if err != nil {
		return fmt.Errorf("the folder of systemd's units: %w", err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	name := c.Name + ".service"
	if _, err := root.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, fmt.Errorf("%s: %w", filepath.Join(dir, name), ErrExists))
	}
	if err := root.WriteFile(name, []byte(unit(&c, exe)), 0o644); err != nil {
		return fmt.Errorf("write the unit: %w", err)
	}
	return nil
}

// unit returns the unit's text.
func unit(c *Config, exe string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "[Unit]\nDescription=%s\nAfter=network-online.target\nWants=network-online.target\n\n", strings.ReplaceAll(c.Display+": "+c.Description, "%", "%%"))
	// Do not escape $ in the program's path: systemd expands only arguments.
	fmt.Fprintf(&b, "[Service]\nExecStart=%s", strings.ReplaceAll(quote(exe), "$$", "$"))
	for _, a := range c.Args {
		b.WriteString(" " + quote(a))
	}
	b.WriteString("\n")
	if c.Reload {
		b.WriteString("ExecReload=/bin/kill -HUP $MAINPID\n")
	}
	if c.User != "" {
		fmt.Fprintf(&b, "User=%s\n", strings.ReplaceAll(c.User, "%", "%%"))
		if c.LowPorts {
			b.WriteString("AmbientCapabilities=CAP_NET_BIND_SERVICE\n")
		}
	}
	b.WriteString("Restart=on-failure\nRestartSec=5\nTimeoutStopSec=60\nLimitNOFILE=65536\nUMask=0027\n" + restrictions)
	if len(c.Writable) > 0 {
		b.WriteString("ProtectSystem=strict\n")
		private := true
		for _, dir := range c.Writable {
			fmt.Fprintf(&b, "ReadWritePaths=%s\n", quotePath(dir))
			private = private && !strings.HasPrefix(dir, "/tmp/") && !strings.HasPrefix(dir, "/var/tmp/")
		}
		if private {
			b.WriteString("PrivateTmp=yes\n")
		}
	}
	b.WriteString("\n[Install]\nWantedBy=multi-user.target\n")
	return b.String()
}

// restrictions take away what neither program needs. Both need the files of the machine: sources, targets and
// mounts that come later.
const restrictions = `NoNewPrivileges=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=ENOSYS
`

// quotePath is quote for a path that may not exist. systemd expands no $ in it.
func quotePath(s string) string { return strings.ReplaceAll(quote("-"+s), "$$", "$") }

// quote returns a text as one word of a unit, protected from any expansion.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `%`, `%%`, `$`, `$$`).Replace(s) + `"`
}

// Uninstall stops the service and removes its unit.
func Uninstall(ctx context.Context, name string) error {
	if err := (&Config{Name: name}).check(); err != nil {
		return err
	}
	path := filepath.Join(unitDir, name+".service")
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", path, ErrAbsent)
	}
	stopped := systemctl(ctx, "disable", "--now", name+".service")
	if stopped != nil && systemctl(ctx, "is-active", "--quiet", name+".service") == nil {
		return stopped // it is still running, so keep its unit
	}
	if err := os.Remove(path); err != nil {
		return errors.Join(stopped, fmt.Errorf("remove the unit: %w", err))
	}
	return systemctl(ctx, "daemon-reload")
}

func systemctl(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Run runs serve. systemd starts programs normally and stops them by SIGTERM;
// the caller's context must end on that signal.
func Run(ctx context.Context, _ string, serve func(context.Context) error) error { return serve(ctx) }
