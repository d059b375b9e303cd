package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/kardianos/service"
	"github.com/spf13/cobra"
)

// serviceName is what the service manager knows the Core by.
const serviceName = "nightferry-core"

func newCoreInstall(e *env) *cobra.Command {
	var f coreFlags
	var user, name string
	cmd := e.command(verb{
		use:     "install [flags]",
		short:   "Make the Core a service of this machine",
		long:    "Registers the Core as a systemd unit, or as a Windows service, that starts with the machine and is restarted when it fails, and starts it. The configuration is checked first. It needs the rights of an administrator. On Windows the log goes to core.log in the data folder.",
		example: "nightferry core install --config /srv/nightferry/nightferry.yaml --user nightferry",
		run: func(ctx context.Context, _ []string) error {
			c, path, err := f.load()
			if err != nil {
				return err
			}
			args := []string{"core", "run", "--config", path}
			if runtime.GOOS == "windows" {
				args = append(args, "--log-file", filepath.Join(c.Data, "core.log"))
			}
			s, err := coreService(name, user, args, nil)
			if err != nil {
				return err
			}
			if err := s.Install(); err != nil {
				return fmt.Errorf("register the service %s: %w", name, err)
			}
			if err := s.Start(); err != nil {
				return fmt.Errorf("the service %s is registered, but does not start: %w", name, err)
			}
			e.event("installed", struct {
				Service  string `json:"service"`
				Platform string `json:"platform"`
			}{name, s.Platform()})
			e.summary("service %s is installed (%s) and started", shown(name), s.Platform())
			return nil
		},
	})
	f.add(cmd)
	addServiceName(cmd, &name)
	cmd.Flags().StringVar(&user, "user", "", "run as `ACCOUNT` (default root, or LocalSystem on Windows)")
	return cmd
}

func newCoreUninstall(e *env) *cobra.Command {
	var name string
	cmd := e.command(verb{
		use:     "uninstall [flags]",
		short:   "Take the Core out of this machine's services",
		long:    "Stops the Core's service and takes it out of systemd or Windows' services. Configuration, data and logs stay.",
		example: "nightferry core uninstall",
		run: func(context.Context, []string) error {
			s, err := coreService(name, "", nil, nil)
			if err != nil {
				return err
			}
			if err := s.Stop(); err != nil {
				e.warn("stop the service: %v", err) // it may not run
			}
			if err := s.Uninstall(); err != nil {
				return fmt.Errorf("remove the service %s: %w", name, err)
			}
			e.event("uninstalled", struct {
				Service string `json:"service"`
			}{name})
			e.summary("service %s is removed; configuration, data and logs are still there", shown(name))
			return nil
		},
	})
	addServiceName(cmd, &name)
	return cmd
}

func addServiceName(cmd *cobra.Command, name *string) {
	cmd.Flags().StringVar(name, "name", serviceName, "the service's `NAME`")
}

func coreService(name, user string, args []string, p service.Interface) (service.Service, error) {
	if p == nil {
		p = &program{}
	}
	c := &service.Config{
		Name: name, DisplayName: "nightferry Core", Description: "Carries content to a fleet of sites and keeps the records.",
		Arguments: args, UserName: user,
		Dependencies: serviceDependencies(),
		Option:       service.KeyValue{"Restart": "on-failure", "ReloadSignal": "HUP", "OnFailure": "restart"},
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	c.Executable = exe
	s, err := service.New(p, c)
	if err != nil {
		return nil, fmt.Errorf("the service manager of this machine: %w", err)
	}
	return s, nil
}

func serviceDependencies() []string {
	if runtime.GOOS == "linux" {
		return []string{"After=network-online.target", "Wants=network-online.target"}
	}
	return nil
}

// program lets Windows' service manager start and stop the Core.
type program struct {
	serve  func(context.Context) error
	cancel context.CancelFunc
	done   chan error
}

// Start implements service.Interface; it must not block.
func (p *program) Start(service.Service) error {
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel, p.done = cancel, make(chan error, 1)
	go func() {
		err := p.serve(ctx)
		p.done <- err
		if err != nil && ctx.Err() == nil {
			os.Exit(codeOf(err)) // so that the manager sees a failure, and starts it again
		}
	}()
	return nil
}

// Stop implements service.Interface.
func (p *program) Stop(service.Service) error {
	p.cancel()
	return <-p.done
}

// underManager runs serve under Windows' service manager where that has
// started this process, else at once.
func underManager(ctx context.Context, serve func(context.Context) error) error {
	if runtime.GOOS != "windows" || service.Interactive() {
		return serve(ctx)
	}
	s, err := coreService(serviceName, "", nil, &program{serve: serve})
	if err != nil {
		return err
	}
	return s.Run()
}
