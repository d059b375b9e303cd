package main

import (
	"context"
	"path/filepath"
	"runtime"

	"github.com/spf13/cobra"

	"nightferry/internal/bucket"
	"nightferry/internal/config"
	"nightferry/internal/service"
)

// serviceName is what the service manager knows the Core by.
const serviceName = "nightferry-core"

func newCoreInstall(e *env) *cobra.Command {
	var f coreFlags
	s := service.Config{Display: "nightferry Core", Description: "Carries content to a fleet of sites and keeps the records.", Reload: true, LowPorts: true}
	cmd := e.command(verb{
		use:   "install [flags]",
		short: "Make the Core a service of this machine",
		long: "Registers the Core as a systemd unit, or as a Windows service, that starts with the machine and is restarted when it fails, and starts it. The configuration is read first. It needs the rights of an administrator. On Windows the log goes to core.log in the data folder. " +
			"An account given with --user must own the data folder; on Windows use a group managed service account, which needs no password.",
		example: "nightferry core install --config /srv/nightferry/nightferry.yaml --user nightferry",
		run: func(ctx context.Context, _ []string) error {
			c, path, err := f.load()
			if err != nil {
				return err
			}
			s.Args = []string{"core", "run", "--config", path}
			s.Writable = writable(c)
			if runtime.GOOS == "windows" {
				s.Args = append(s.Args, "--log-file", filepath.Join(c.Data, "core.log"))
			}
			if err := service.Install(ctx, s); err != nil {
				return err
			}
			e.event("installed", struct {
				Service string `json:"service"`
				Kind    string `json:"kind"`
			}{s.Name, service.Kind})
			e.summary("%s %s is installed and started", service.Kind, shown(s.Name))
			return nil
		},
	})
	f.add(cmd)
	addServiceName(cmd, &s.Name)
	cmd.Flags().StringVar(&s.User, "user", "", "run as `ACCOUNT` (default root, or LocalSystem on Windows)")
	return cmd
}

// writable returns the folders that the Core writes to.
func writable(c *config.Config) []string {
	list := []string{c.Data, c.LogFolder}
	for _, dir := range []string{bucket.Folder(c.Store), c.Alerts.SMTP.Folder} {
		if dir != "" {
			list = append(list, dir)
		}
	}
	return list
}

func newCoreUninstall(e *env) *cobra.Command {
	var name string
	cmd := e.command(verb{
		use:     "uninstall [flags]",
		short:   "Take the Core out of this machine's services",
		long:    "Stops the Core's service and takes it out of systemd or Windows' services. Configuration, data and logs stay.",
		example: "nightferry core uninstall",
		run: func(ctx context.Context, _ []string) error {
			if err := service.Uninstall(ctx, name); err != nil {
				return err
			}
			e.event("uninstalled", struct {
				Service string `json:"service"`
				Kind    string `json:"kind"`
			}{name, service.Kind})
			e.summary("%s %s is removed; configuration, data and logs are still there", service.Kind, shown(name))
			return nil
		},
	})
	addServiceName(cmd, &name)
	return cmd
}

func addServiceName(cmd *cobra.Command, name *string) {
	cmd.Flags().StringVar(name, "name", serviceName, "the service's `NAME`")
}
