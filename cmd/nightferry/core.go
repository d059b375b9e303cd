package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/spf13/cobra"

	"nightferry/internal/api"
	"nightferry/internal/config"
	"nightferry/internal/fleet"
)

// envConfig names the configuration file.
const envConfig = "NIGHTFERRY_CONFIG"

// configName is the configuration's name in a Core's folder.
const configName = "nightferry.yaml"

func newCore(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "core",
		Short:   "Set up, check and run the Core of a fleet",
		Long:    wrap("The Core is the server that owns the content, the configuration and the records of a fleet of sites. init makes one, check judges it without starting anything, run is the daemon, reload gives it a changed configuration, and install makes it a service.", lineWidth),
		Example: examples("nightferry core init /srv/nightferry --store 's3://bucket/fleet?region=eu-west-1'\nnightferry core run --config /srv/nightferry/nightferry.yaml"),
	}
	cmd.AddCommand(newCoreInit(e), newCoreCheck(e), newCoreRun(e), newCoreReload(e), newCoreTasks(e), newCoreInstall(e), newCoreUninstall(e))
	return cmd
}

// coreFlags find the Core.
type coreFlags struct{ config string }

func (f *coreFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.config, "config", "", "the Core's configuration `FILE` (or NIGHTFERRY_CONFIG; else the system's)")
}

// path returns the configuration file. The current folder is not searched: it
// may be another account's, whose Core would get the secret or the halt order.
func (f *coreFlags) path() (string, error) {
	p := f.config
	if p == "" {
		p = os.Getenv(envConfig)
	}
	if p != "" {
		return filepath.Abs(p)
	}
	p = systemConfig()
	if absent, err := confirmAbsent(p); err != nil || !absent {
		return p, err
	}
	return "", &absentError{"there is no configuration at " + p, "name the configuration with --config FILE or " + envConfig + ", or make one: nightferry core init DIR"}
}

// systemConfig is where a Core's configuration lies if nobody says.
func systemConfig() string {
	if runtime.GOOS == "windows" {
		return filepath.Join(os.Getenv("ProgramData"), "nightferry", configName)
	}
	return "/etc/nightferry/" + configName
}

// load reads the configuration.
func (f *coreFlags) load() (*config.Config, string, error) {
	path, err := f.path()
	if err != nil {
		return nil, "", err
	}
	c, err := config.Load(path)
	return c, path, err
}

// downError says that the Core does not run.
type downError struct{ config string }

func (e *downError) Error() string { return "the Core of " + e.config + " is not running" }
func (e *downError) Unwrap() error { return api.ErrDown }

// Remedy tells how to start it.
func (e *downError) Remedy() string {
	return "start it: nightferry core run --config " + e.config
}

// client returns a client of the Core. A mistake in its configuration does not
// keep a running Core from being asked.
func (f *coreFlags) client() (*api.Client, error) {
	if at := os.Getenv(envCore); at != "" && f.config == "" {
		return remoteClient(at)
	}
	path, err := f.path()
	if err != nil {
		return nil, err
	}
	dir, err := config.DataFolder(path)
	if err != nil {
		return nil, err
	}
	token, err := apiToken()
	if err != nil {
		return nil, err
	}
	return api.NewClient(api.ClientOptions{Dir: dir, Token: token, Explain: func(err error) error { return unanswered(path, err) }}), nil
}

// silentError says that the Core runs and hangs.
type silentError struct{ error }

func (e *silentError) Unwrap() error { return e.error }

// Remedy names the ways that do not need the Core.
func (e *silentError) Remedy() string {
	return "look at its process and its log; to stop sites without it: nightferry halt --all --release-key FILE STORE with the key of the operators on call, or nightferry-agent halt on a site"
}

// unanswered adds a remedy to an error of a Core that is down or hangs.
func unanswered(path string, err error) error {
	if errors.Is(err, api.ErrSilent) {
		return &silentError{err}
	}
	if errors.Is(err, api.ErrDown) {
		return &downError{path}
	}
	return err
}

// siteFlags choose sites and channels.
type siteFlags struct{ fleet.Scope }

func (f *siteFlags) add(cmd *cobra.Command, channel bool) {
	cmd.Flags().StringVar(&f.Site, "site", "", "only the site `NAME`")
	cmd.Flags().StringVar(&f.Region, "region", "", "only sites of region `NAME`")
	cmd.Flags().StringVar(&f.Domain, "domain", "", "only sites of domain `NAME`")
	if channel {
		cmd.Flags().StringVar(&f.Channel, "channel", "", "only the channel `NAME`")
	}
}

// confirmAbsent reports whether a file is not there.
func confirmAbsent(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	return false, err
}
