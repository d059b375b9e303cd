package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"

	"github.com/spf13/cobra"

	"nightferry/internal/agent"
	"nightferry/internal/logfile"
	"nightferry/internal/service"
)

// serviceName is the agent's name at the service manager.
const serviceName = "nightferry-agent"

func newRun(e *env) *cobra.Command {
	var seeds []string
	var logFile string
	cmd := e.newCommand("run [flags]", "Run the agent until a signal stops it",
		"Connects to the Core and keeps the targets at its desired state. SIGTERM or Ctrl-C stops it; after a stop or crash at any point the next start continues. It logs to standard error, as JSON with --json. Proxies come from HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY.",
		"nightferry-agent run --seed /mnt/shipped", cobra.NoArgs,
		func(ctx context.Context, _ []string) error {
			w, done, err := e.logTo(logFile)
			if err != nil {
				return err
			}
			return errors.Join(service.Run(ctx, serviceName, func(ctx context.Context) error { return e.serve(ctx, w, seeds) }), done())
		})
	cmd.Flags().StringArrayVar(&seeds, "seed", nil, "look for content in `DIR` before fetching it, such as a disk that was shipped here; may be given several times")
	cmd.Flags().StringVar(&logFile, "log-file", "", "append the log to `FILE` instead of standard error; it is rotated at 16 MiB or 7 days, and 8 older files stay")
	return cmd
}

// logTo returns the writer for the daemon's log.
func (e *env) logTo(file string) (io.Writer, func() error, error) {
	if file == "" {
		return e.stderr, func() error { return nil }, nil
	}
	f, err := logfile.Open(file, logfile.Options{Now: e.now})
	if err != nil {
		return nil, nil, err
	}
	return f, f.Close, nil
}

func (e *env) serve(ctx context.Context, w io.Writer, seeds []string) error {
	var lines slog.Handler = slog.NewTextHandler(w, nil)
	if e.json {
		lines = slog.NewJSONHandler(w, nil)
	}
	log := slog.New(thinned{lines, logfile.NewThinner(e.now)})
	return agent.Run(ctx, agent.Options{StateDir: e.stateDir, Version: version(), Seeds: seeds, Env: os.Getenv, Now: e.now, Log: func(n agent.Note) {
		level := map[agent.Level]slog.Level{agent.Info: slog.LevelInfo, agent.Warning: slog.LevelWarn, agent.Error: slog.LevelError}[n.Level]
		var attrs []any
		if n.Channel != "" {
			attrs = append(attrs, "channel", n.Channel)
		}
		if n.Err != nil {
			attrs = append(attrs, "cause", escapeControl(n.Err.Error()))
		}
		log.Log(ctx, level, escapeControl(n.Text), attrs...)
	}})
}

// checkEnrolled returns an error if the state directory holds no identity. A directory of the account that the service will
// run as is not read: its content is not this account's to trust.
func (e *env) checkEnrolled(account string) error {
	if account == "" || runtime.GOOS == "windows" {
		_, err := agent.Load(e.stateDir)
		return err
	}
	return agent.IsEnrolled(e.stateDir)
}

func newInstall(e *env) *cobra.Command {
	var f joinFlags
	var seeds []string
	var account string
	cmd := e.newCommand("install [[TOKEN | --token-file FILE] --allow DIR] [flags]", "Join this server to a Core and make the agent a service",
		"Redeems a token, if one is given, and registers the agent as a systemd unit, or as a Windows service, that starts with the machine. It asks nothing, so that the script that builds a server can call it. It needs the rights of an administrator. On Windows the log goes to agent.log in the state directory.",
		"nightferry-agent install --token-file token.txt --allow /srv/packages", cobra.MaximumNArgs(1),
		func(ctx context.Context, args []string) error {
			if len(args) > 0 || f.tokenFile != "" {
				id, err := e.joinSite(ctx, &f, args)
				if err != nil {
					return err
				}
				if err := e.printJoined(id); err != nil {
					return err
				}
			} else if err := e.checkEnrolled(account); err != nil {
				return err
			}
			state, err := filepath.Abs(e.stateDir)
			if err != nil {
				return err
			}
			s := service.Config{Name: serviceName, Display: "nightferry agent", Description: "Keeps this server's folders at the releases that its Core wants there.",
				Args: []string{"run", "--state", state}, User: account}
			for _, dir := range seeds {
				s.Args = append(s.Args, "--seed", dir)
			}
			if runtime.GOOS == "windows" {
				s.Args = append(s.Args, "--log-file", filepath.Join(state, "agent.log"))
			}
			if err := service.Install(ctx, s); err != nil {
				return err
			}
			return e.logEvent("installed", "is installed and started")
		})
	f.addFlags(cmd)
	cmd.Flags().StringArrayVar(&seeds, "seed", nil, "look for content in `DIR` before fetching it; may be given several times")
	cmd.Flags().StringVar(&account, "user", "", "run as `ACCOUNT`, which must own the state directory (default root, or LocalSystem on Windows)")
	return cmd
}

func newUninstall(e *env) *cobra.Command {
	return e.newCommand("uninstall", "Take the agent out of this machine's services",
		"Stops the service and removes it. The identity, the agent's memory and all content stay. Revoke the site at the Core when it\nis not to come back.", "nightferry-agent uninstall", cobra.NoArgs,
		func(ctx context.Context, _ []string) error {
			if err := service.Uninstall(ctx, serviceName); err != nil {
				return err
			}
			return e.logEvent("uninstalled", "is removed; identity and content are still there")
		})
}

func (e *env) logEvent(event, text string) error {
	if e.json {
		return e.writeJSON(map[string]string{"event": event, "service": serviceName, "kind": service.Kind})
	}
	return e.print("%s %s %s", service.Kind, serviceName, text)
}
