package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"nightferry/internal/api"
	"nightferry/internal/config"
	"nightferry/internal/core"
	"nightferry/internal/door"
	"nightferry/internal/durable"
	"nightferry/internal/record"
	"nightferry/internal/vault"
)

func newCoreCheck(e *env) *cobra.Command {
	var f coreFlags
	cmd := e.command(verb{
		use:     "check [flags]",
		short:   "Judge the configuration and keys, without starting anything",
		long:    "Reads the configuration and reports every mistake with its line and column, then checks that the keys are private, the vault opens, the store holds the Core's repository and supports the required operations (conditional writes, checked uploads, ranged reads, a clock), the sources exist and the system knows the groups that may read logs. It changes nothing in the store and does not disturb a running Core. Root checks as the account that owns the data folder.",
		example: "nightferry core check --config /srv/nightferry/nightferry.yaml",
		run:     func(ctx context.Context, _ []string) error { return coreSetup{e}.coreCheck(ctx, &f) },
	})
	f.add(cmd)
	return cmd
}

// checked is one thing that core check looked at.
type checked struct {
	What     string `json:"what"`
	OK       bool   `json:"ok"`
	Unproven bool   `json:"unproven,omitempty"`
	Detail   string `json:"detail"`
}

// unprovenError is why something could not be looked at. It is no problem found.
type unprovenError struct{ why string }

func (e *unprovenError) Error() string { return e.why }

func (g coreSetup) coreCheck(ctx context.Context, f *coreFlags) error {
	c, path, err := f.load()
	if err != nil {
		return err
	}
	caller := os.Geteuid()
	if err := durable.BecomeOwner(c.Data); err != nil {
		return err
	}
	bad := 0
	tell := func(what, good string, err error) {
		r := checked{What: what, OK: err == nil, Unproven: as[*unprovenError](err), Detail: good}
		mark := "ok "
		switch {
		case r.Unproven:
			r.Detail, mark = "unproven: "+err.Error(), "?  "
		case err != nil:
			r.Detail, mark = err.Error(), "BAD"
			bad++
		}
		g.e.event("check", r)
		if !g.e.json && (!g.e.quiet || !r.OK) {
			g.e.print("%s", hanging(fmt.Sprintf("%s  %-14s ", mark, what), shownLines(r.Detail)))
		}
	}
	tell("configuration", fmt.Sprintf("%s: %s, %s, %s, %s", path, count(int64(len(c.Fleet.Channels)), "channel"), count(int64(len(c.Fleet.Domains)), "domain"),
		count(int64(len(c.Fleet.Regions)), "region"), count(int64(len(c.Fleet.Sites)), "site")), nil)
	master, err := vault.LoadMaster(c.MasterKeyFile, os.Getenv)
	where := c.MasterKeyFile
	if os.Getenv(vault.MasterEnv) != "" {
		where = "in " + vault.MasterEnv
	}
	tell("master key", where, err)
	if err == nil {
		store := func(text string, err error) { tell("store", shownStore(c.Store)+text, err) }
		alerts := func(secret func(string) (string, error)) {
			a := settings(c).Alerts
			f := core.CheckAlerts(&a, secret)
			if a.Rules.Mail {
				tell("mail", "its files and secret can be used", f.Mail)
			}
			if a.Rules.Webhook {
				tell("webhook", "its secret can be used", f.Webhook)
			}
		}
		text, err := g.checkVault(ctx, f, c, master, store, alerts)
		tell("vault", text, err)
	}
	if os.Geteuid() != caller {
		tell("environment", "", &unprovenError{"proxies and AWS variables were taken from root's environment, and the Core's service may have others: compare them with systemctl show -p Environment -p EnvironmentFiles of its unit, or run this command with the service's environment"})
	}
	if l := &c.Listen.Console; l.CertificateFile != "" {
		_, err := door.LoadFiles(l.CertificateFile, l.KeyFile, g.e.now())
		tell("console", l.URL+", by the certificate in "+l.CertificateFile, err)
	}
	for _, ch := range c.Fleet.Channels {
		tell("source", ch.Source, checkSource(ch.Source))
	}
	for _, d := range c.Fleet.Domains {
		if d.LogGroup != "" {
			tell("log readers", d.LogGroup, record.Access{Group: d.LogGroup}.Check())
		}
	}
	if c.Bus != nil {
		account, err := core.CheckCluster(cluster(c))
		tell("nats", "account "+account, err)
	}
	if bad > 0 {
		return &foundError{fmt.Sprintf("%s: a Core would not run well like this", count(int64(bad), "problem"))}
	}
	return nil
}

// checkWithin bounds how long the store is waited for.
const checkWithin = 30 * time.Second

// checkVault opens the vault, and the repository by its keys, unless a running
// Core has done that. It tells store what became of the repository, and gives
// alerts a reader of secrets.
func (g coreSetup) checkVault(ctx context.Context, f *coreFlags, c *config.Config, master vault.Master, store func(string, error), alerts func(secret func(string) (string, error))) (string, error) {
	if absent, err := confirmAbsent(c.Data); err != nil || absent {
		return "", errors.Join(err, fmt.Errorf("%s does not exist: nightferry core init makes it", c.Data))
	}
	o, err := core.OpenOffline(core.WithActor(ctx, username()), c.Data, master, g.e.now)
	if errors.Is(err, durable.ErrBusy) {
		g.checkRunning(ctx, f, store, alerts)
		return "", &unprovenError{"the running Core has it open: to check it, stop the Core"}
	}
	if err != nil {
		return "", err
	}
	within, cancel := context.WithTimeoutCause(ctx, checkWithin, fmt.Errorf("no answer within %s", took(checkWithin)))
	defer cancel()
	opened := g.e.coreStore()
	opened.MaxAttempts = 2
	err = o.CheckStore(core.WithActor(within, username()), core.Options{Data: c.Data, StoreURL: c.Store, Store: opened, Env: os.Getenv, Now: g.e.now})
	store(", and it holds the Core's repository", err)
	alerts(func(name string) (string, error) {
		s, _, err := o.Vault.Get(core.WithActor(ctx, username()), name, "core check")
		if errors.Is(err, fs.ErrNotExist) {
			return "", nil
		}
		return string(s.Reveal()), err
	})
	list, err := o.Vault.List(ctx)
	return "opens, and holds " + count(int64(len(list)), "secret"), errors.Join(err, o.Close())
}

// checkRunning reports the store as the running Core sees it, and which secrets are missing.
func (g coreSetup) checkRunning(ctx context.Context, f *coreFlags, store func(string, error), alerts func(secret func(string) (string, error))) {
	a, err := f.client()
	if err != nil {
		store("", err)
		return
	}
	defer a.Close()
	secrets, secretsErr := a.Secrets(ctx)
	alerts(func(name string) (string, error) {
		if secretsErr == nil && slices.ContainsFunc(secrets, func(i api.Secret) bool { return i.Name == name }) {
			return "", &unprovenError{"the running Core has the secret " + name + ", and judged it when it read it: see nightferry incidents"}
		}
		return "", secretsErr
	})
	s, err := a.Status(ctx)
	switch {
	case err != nil:
		err = fmt.Errorf("the running Core uses it and does not say whether it can read it: %w", err)
	case s.Unread != "":
		err = fmt.Errorf("the running Core cannot read it: %s", s.Unread)
	case s.StoreRead.IsZero():
		err = &unprovenError{"the running Core has not read it yet"}
	}
	store(", read by the running Core on "+stamp(s.StoreRead), err)
}

func checkSource(dir string) error {
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		return fmt.Errorf("%s is no folder", dir)
	}
	if err == nil {
		_, err = os.ReadDir(dir)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s does not exist: make it, or change the channel's source", dir)
	}
	return err
}
