package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"nightferry/internal/api"
	"nightferry/internal/bus"
	"nightferry/internal/config"
	"nightferry/internal/core"
	"nightferry/internal/halt"
	"nightferry/internal/ledger"
	"nightferry/internal/logfile"
	"nightferry/internal/rights"
	"nightferry/internal/schedule"
	"nightferry/internal/service"
	"nightferry/internal/signin"
	"nightferry/internal/vault"
)

func newCoreRun(e *env) *cobra.Command {
	var f coreFlags
	var logFile, rehearse string
	cmd := e.command(verb{
		use:   "run [flags]",
		short: "Run the Core until it is told to stop",
		long: "Serves the sites over TLS, publishes, keeps the records, and answers the other commands on a local socket that only its own account may use. SIGHUP or nightferry core reload reads the configuration again; SIGTERM or Ctrl-C stops it, which no site minds. " +
			"It logs to standard error, one line an event, or as JSON with --json. The master key is read from its file, or from NIGHTFERRY_MASTER_KEY. " +
			"--rehearse lets a Core of its own, with a data folder and sites of its own, follow its calendar in fast motion: with 2026-03-28T18:00:00Z@720, windows, timetables, cadences, reminders and reports see that evening come and an hour pass in 5 seconds, while content moves as fast as it can, while signatures, credentials and URL expiry use real time. A restart continues in the same night.",
		example: "nightferry core run --config /srv/nightferry/nightferry.yaml",
		run: func(ctx context.Context, _ []string) error {
			w, done, err := e.logTo(logFile)
			if err != nil {
				return err
			}
			return errors.Join(service.Run(ctx, serviceName, func(ctx context.Context) error { return e.serve(ctx, &f, w, rehearse) }), done())
		},
	})
	f.add(cmd)
	cmd.Flags().StringVar(&rehearse, "rehearse", "", "follow the calendar from `START@SPEED` on, SPEED times as fast; never with sites at work")
	cmd.Flags().StringVar(&logFile, "log-file", "", "append the log to `FILE` instead of standard error; it is rotated at 16 MiB or 7 days, and 8 older files stay")
	return cmd
}

// logTo returns where the daemon logs to.
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

// daemon is the Core with the process around it.
type daemon struct {
	e       *env
	core    *core.Core
	events  *api.EventLog
	console config.Console // as the process was started
	path    string
	log     *slog.Logger

	mu      sync.Mutex     // of a reload
	running *config.Config // in force
}

// serve runs the Core until ctx ends. A wish to stop is no error.
func (e *env) serve(ctx context.Context, f *coreFlags, w io.Writer, rehearse string) (err error) {
	c, path, err := f.load()
	if err != nil {
		return err
	}
	var lines slog.Handler = slog.NewTextHandler(w, nil)
	if e.json {
		lines = slog.NewJSONHandler(w, nil)
	}
	d := &daemon{e: e, events: api.NewEventLog(e.now), path: path, running: c, console: c.Listen.Console, log: slog.New(thinned{lines, logfile.NewThinner(e.now)})}
	master, err := vault.LoadMaster(c.MasterKeyFile, os.Getenv)
	if err != nil {
		return err
	}
	d.core, err = core.Open(ctx, core.Options{
		Data: c.Data, Logs: c.LogFolder, Master: master, StoreURL: c.Store, Store: e.coreStore(),
		ConsoleURL: c.Listen.Console.URL, Cluster: cluster(c), Addr: c.Listen.Control, WebSocketAddr: c.Listen.WebSocket,
		Version: version(), Env: os.Getenv, Now: e.now, Rehearse: rehearse, OnEvent: d.event, BusLog: d.busLog,
	}, settings(c))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.core.Close()) }()
	door, err := api.Listen(c.Data)
	if err != nil {
		return err
	}
	metrics, err := listenMetrics(c.Listen.Metrics)
	if err != nil {
		return errors.Join(err, door.Close())
	}
	remote, err := d.openConsole(c)
	if err != nil {
		if metrics != nil {
			err = errors.Join(err, metrics.Close())
		}
		return errors.Join(err, door.Close())
	}
	return d.run(ctx, door, metrics, remote)
}

func (d *daemon) run(ctx context.Context, door, metrics net.Listener, remote remoteDoor) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.core.Run(ctx) })
	served := api.ServerOptions{Now: d.e.now, Routes: api.Routes(d.backend()), Tokens: d.core.Tokens, Repeats: d.core.Repeats, Explain: told}
	g.Go(func() error { return api.Serve(ctx, door, served) })
	if remote.listener != nil {
		g.Go(func() error { return d.serveConsole(ctx, remote, served) })
	}
	if metrics != nil {
		g.Go(func() error { return serveHTTP(ctx, metrics, d.metricsHandler()) })
	}
	g.Go(func() error {
		select {
		case <-d.core.Ready():
		case <-ctx.Done():
			return nil
		}
		attrs := []any{"version", version(), "config", d.path, "control", d.core.Addr(), "websocket", d.core.WebSocketAddr()}
		if metrics != nil {
			attrs = append(attrs, "metrics", metrics.Addr().String())
		}
		if remote.listener != nil {
			attrs = append(attrs, "console", remote.listener.Addr().String())
		}
		if r := d.core.Rehearsal(); r != nil {
			d.log.Warn("THIS IS A REHEARSAL: windows, cadences and records have a time of their own", "time", r.Time.UTC().Format(time.RFC3339), "speed", r.Speed)
		}
		d.log.Info("the Core serves", attrs...)
		return d.hangups(ctx)
	})
	err := g.Wait()
	if err != nil && !errors.Is(err, context.Canceled) {
		d.log.Error("the Core stops", "cause", shown(err.Error()))
		return err
	}
	d.log.Info("the Core has stopped")
	return nil
}

// hangups reloads at each SIGHUP.
func (d *daemon) hangups(ctx context.Context) error {
	signals, stop := notifyReload()
	defer stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-signals:
			_, _ = d.reload(core.WithActor(ctx, "SIGHUP")) // it has logged why not
		}
	}
}

// learnWait is how long a reload waits until sites have learned new addresses.
const learnWait = 5 * time.Second

// reload puts the file in force, or leaves everything as it is.
func (d *daemon) reload(ctx context.Context) (r api.Reloaded, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, err := config.Load(d.path)
	if err == nil {
		err = fixed(d.running, c)
	}
	if err == nil {
		err = d.core.Reload(ctx, settings(c))
	}
	if err != nil {
		for l := range strings.Lines(err.Error()) {
			d.log.Error("reload refused, the running configuration stays", "cause", shown(strings.TrimSpace(l)))
		}
		return r, err
	}
	r = api.Reloaded{Config: d.path, Channels: len(c.Fleet.Channels), Domains: len(c.Fleet.Domains), Sites: len(c.Fleet.Sites)}
	r.Faults = d.core.Notifier.Faults() // the Core has logged them
	for _, u := range d.running.Public {
		if !slices.Contains(c.Public, u) {
			r.Former = append(r.Former, u)
		}
	}
	d.running = c
	if len(r.Former) > 0 {
		r.Unmoved = d.core.Unmoved(learnWait)
		d.log.Warn("former addresses have to stay reachable until all sites have learned the new ones", "former", r.Former, "sites", r.Unmoved)
	}
	d.log.Info("configuration reloaded", "channels", r.Channels, "domains", r.Domains, "sites", r.Sites)
	return r, nil
}

// fixed refuses what a running Core cannot change.
func fixed(old, changed *config.Config) error {
	var keys []string
	for key, same := range map[string]bool{
		"store": old.Store == changed.Store, "data": old.Data == changed.Data, "log_folder": old.LogFolder == changed.LogFolder,
		"listen": old.Listen == changed.Listen, "master_key_file": old.MasterKeyFile == changed.MasterKeyFile, "nats": reflect.DeepEqual(old.Bus, changed.Bus),
	} {
		if !same {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	return &refusedError{"a running Core cannot change " + strings.Join(slices.Sorted(slices.Values(keys)), ", "), "restart it for that, or take the change back"}
}

// cluster is the NATS cluster of one's own, if there is one.
func cluster(c *config.Config) *core.Cluster {
	if c.Bus == nil {
		return nil
	}
	return &core.Cluster{URLs: c.Bus.URLs, CredsFile: c.Bus.CredentialsFile, CAFile: c.Bus.CAFile}
}

func settings(c *config.Config) core.Settings {
	return core.Settings{Fleet: c.Fleet, URLs: c.Public, Alerts: core.Alerts(c.Alerts), Retention: ledger.Retention{Logs: c.Retention.Logs, Runs: c.Retention.Runs},
		Prices: schedule.Prices{PerGB: c.Prices.GB, PerThousandRequest: c.Prices.ThousandRequests}, Currency: c.Prices.Currency, SignIn: signIn(c.SignIn)}
}

// signIn returns the identity provider, if there is one.
func signIn(s *config.SignIn) *signin.Settings {
	if s == nil {
		return nil
	}
	out := &signin.Settings{Issuer: s.Issuer, ClientID: s.ClientID, CAFile: s.CAFile, Claim: s.Claim}
	for _, g := range s.Roles {
		out.Grants = append(out.Grants, signin.Grant{Value: g.Value, Role: g.Role, Scope: rights.Scope{Domain: g.Domain, Region: g.Region}})
	}
	return out
}

// event logs an event and sends it to the clients that follow events. Progress is for those alone.
func (d *daemon) event(ev core.Event) {
	d.events.Add(ev)
	level := slog.LevelInfo
	switch ev.Kind {
	case core.RunProgressed:
		return
	case core.IncidentOpened, core.Refused, core.Trouble:
		level = slog.LevelWarn
	}
	var attrs []slog.Attr
	for _, a := range []struct{ key, value string }{{"domain", ev.Domain}, {"site", ev.Site}, {"channel", ev.Channel}, {"run", ev.Run}, {"text", ev.Text}} {
		if a.value != "" {
			attrs = append(attrs, slog.String(a.key, shown(a.value)))
		}
	}
	if ev.Ended != nil {
		attrs = append(attrs, slog.String("end", string(ev.Ended.State)), slog.Uint64("release", uint64(ev.Ended.Number)), slog.Int64("fetched", ev.Ended.Totals.Fetched))
	}
	d.log.LogAttrs(context.Background(), level, string(ev.Kind), attrs...)
}

// busLog logs what the embedded server says that somebody should look at.
func (d *daemon) busLog(l bus.Level, text string) {
	switch l {
	case bus.Error:
		d.log.Error("bus", "text", shown(text))
	case bus.Warning, bus.Refused:
		d.log.Warn("bus", "text", shown(text))
	}
}

func newCoreReload(e *env) *cobra.Command {
	var f coreFlags
	cmd := e.command(verb{
		use:     "reload [flags]",
		short:   "Let the running Core read its configuration again",
		long:    "Lets the running Core read its configuration file again, as SIGHUP does. A file with any mistake is refused whole, with all its mistakes listed, and the Core keeps its configuration.",
		example: "nightferry core reload --config /srv/nightferry/nightferry.yaml",
		run: func(ctx context.Context, _ []string) error {
			a, err := f.client()
			if err != nil {
				return err
			}
			defer a.Close()
			r, err := a.Reload(ctx)
			if err != nil {
				return err
			}
			e.event("reloaded", r)
			e.summary("%s is in force: %s, %s, %s", shown(r.Config), count(int64(r.Channels), "channel"), count(int64(r.Domains), "domain"), count(int64(r.Sites), "site"))
			for _, text := range r.Faults {
				e.summary("  no alert can be delivered there: %s", shown(text))
			}
			if len(r.Unmoved) > 0 {
				e.summary("  %s would be cut off without %s: keep it reachable until they have connected once: %s",
					count(int64(len(r.Unmoved)), "site"), strings.Join(r.Former, ", "), strings.Join(r.Unmoved, ", "))
			}
			return nil
		},
	})
	f.add(cmd)
	return cmd
}

// told turns an error into what a client is told: the code is the name in the
// table of exit codes, so that a command ends as if it had done the work itself.
func told(err error) *api.Error {
	text, remedy := explain(err)
	t := &api.Error{Code: "failed", Message: text, Fix: remedy, Paths: pathsOf(err)}
	var halted *halt.Error
	if remedy == "" && errors.As(err, &halted) {
		t.Fix = "nightferry halt status shows its sites; nightferry resume " + halted.Order.ID.Short() + " lifts it"
		if halted.Order.ID.IsZero() {
			t.Fix = "nightferry halt status shows it; nightferry-agent resume, on that server, lifts it"
		}
	}
	code := codeOf(err)
	for _, x := range exits() {
		if x.code == code {
			t.Code = x.name
		}
	}
	return t
}

// serveHTTP answers until ctx ends.
func serveHTTP(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: readTimeout, ReadTimeout: readTimeout, WriteTimeout: readTimeout}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve metrics: %w", err)
	case <-ctx.Done():
	}
	err := s.Close()
	if e := <-done; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	return err
}
