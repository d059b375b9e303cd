package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"os/user"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"nightferry/internal/api"
	"nightferry/internal/halt"
	"nightferry/internal/repo"
	"nightferry/internal/trust"
)

// scopeFlags say whom an order is for.
type scopeFlags struct {
	all                           bool
	channel, region, domain, site string
}

func (f *scopeFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.all, "all", false, "everything")
	cmd.Flags().StringVar(&f.channel, "channel", "", "everything that moves channel `NAME`")
	cmd.Flags().StringVar(&f.region, "region", "", "every site of region `NAME`")
	cmd.Flags().StringVar(&f.domain, "domain", "", "every site of domain `NAME`")
	cmd.Flags().StringVar(&f.site, "site", "", "the site `NAME`, a host's name unless its pull says another with --site")
}

// scope returns the one scope that is set.
func (f *scopeFlags) scope(cmd string) (scope, value string, err error) {
	n := 0
	if f.all {
		scope, n = halt.All, n+1
	}
	for _, s := range []struct{ scope, value string }{{halt.Channel, f.channel}, {halt.Region, f.region}, {halt.Domain, f.domain}, {halt.Site, f.site}} {
		if s.value != "" {
			scope, value, n = s.scope, s.value, n+1
		}
	}
	if n != 1 {
		return "", "", usage(cmd, "name exactly one of --all, --channel, --region, --domain, --site")
	}
	return scope, value, nil
}

func newHalt(e *env) *cobra.Command {
	var f storeFlags
	var core coreFlags
	var scope scopeFlags
	var keyFile, reason string
	cmd := e.command(verb{
		use:   "halt [flags] [STORE]",
		short: "Order sites, pushes and pulls to stop",
		long: "Gives a halt order through the Core: every site in its scope stops within a second and confirms. A site that the Core cannot reach reads the order from the store. " +
			"With STORE, and no Core, it writes the order into the store: a running pull or push stops before its next block, and a new one does not start. Either way nothing starts again, even after a restart, until resume lifts the order. Staged data is kept and used then.",
		example:   "nightferry halt --all --reason 'bad package'\nnightferry halt --region ap --reason typhoon\nnightferry halt status\nnightferry halt --channel driver file:///srv/store",
		max:       1,
		interrupt: haltUnknown,
		run: func(ctx context.Context, args []string) error {
			kind, value, err := scope.scope("halt")
			if err != nil {
				return err
			}
			if len(args) == 0 {
				return haltVerbs{e}.haltFleet(ctx, &core, kind, value, reason)
			}
			key, err := signingKey(releaseUse, keyFile)
			if err != nil {
				return err
			}
			if reason == "" {
				reason = "no reason given"
			}
			return haltVerbs{e}.changeHalts(ctx, args[0], &f, key, func(o *halt.Orders, _ bool) (uint64, error) {
				o.Add(halt.NewOrder(kind, value, reason, username(), e.now()))
				return 0, nil
			}, func() {})
		},
	})
	f.add(cmd)
	core.add(cmd)
	scope.add(cmd)
	addReleaseKey(cmd, &keyFile)
	cmd.Flags().StringVar(&reason, "reason", "", "reason as `TEXT`, shown at every stopped site")
	cmd.AddCommand(newHaltStatus(e))
	return cmd
}

func newResume(e *env) *cobra.Command {
	var f storeFlags
	var core coreFlags
	var scope scopeFlags
	var keyFile string
	var id string
	cmd := e.command(verb{
		use:   "resume [flags] [ORDER] [STORE]",
		short: "Lift orders to stop",
		long: "Lifts the order whose id begins with ORDER, or the orders that were given for exactly the scope named, through the Core, or with STORE in the store. --all lifts every order. Stopped runs then continue where they stopped; the sites of a fleet not all at once. " +
			"With STORE it also puts right a halt object that is gone, damaged, put back or signed by a key that does not count, whether it has such an order or not: it is written anew, without the orders that only it held. --all STORE writes it anew in any case, which also lifts an order that a Core gave and could not store.",
		example:   "nightferry resume 3f9a1c02\nnightferry resume --region ap\nnightferry resume 3f9a1c02 file:///srv/store",
		max:       2,
		interrupt: haltUnknown,
		run: func(ctx context.Context, args []string) error {
			id, args, err := orderOf(id, args)
			if err != nil {
				return err
			}
			var kind, value string
			if id == "" {
				if kind, value, err = scope.scope("resume"); err != nil {
					return err
				}
			}
			if len(args) == 0 {
				return haltVerbs{e}.resumeFleet(ctx, &core, api.ResumeRequest{Order: id, Scope: kind, Value: value})
			}
			key, err := signingKey(releaseUse, keyFile)
			if err != nil {
				return err
			}
			var lift []halt.Order
			err = haltVerbs{e}.changeHalts(ctx, args[0], &f, key, func(o *halt.Orders, lost bool) (skip uint64, err error) {
				lift, err = chosen(o, id, kind, value)
				if kind == halt.All {
					// A Core that is gone may have used the next epoch for an order that it could not store. Sites that
					// have it obey only a higher one.
					skip = 1
				} else if err == nil && len(lift) == 0 && !lost {
					err = &absentError{"no such order is active", "nightferry halt status STORE lists those that are; an order of a Core that is gone may be at the sites only: nightferry resume --all STORE lifts it"}
				}
				o.Active = slices.DeleteFunc(o.Active, func(a halt.Order) bool { return slices.Contains(lift, a) })
				return skip, err
			}, func() { haltVerbs{e}.showLifted(lift) })
			return err
		},
	})
	f.add(cmd)
	core.add(cmd)
	scope.add(cmd)
	addReleaseKey(cmd, &keyFile)
	cmd.Flags().StringVar(&id, "order", "", "lift the order whose id begins with `ID`")
	return cmd
}

func newHaltStatus(e *env) *cobra.Command {
	var f storeFlags
	var core coreFlags
	var all bool
	cmd := e.command(verb{
		use:     "status [flags] [STORE]",
		short:   "List the orders to stop, and who obeys them",
		long:    "Lists the active orders: id, scope, who gave it and when, and why; and for each site when it stopped, how much still came after the order had reached it, and which sites have not confirmed. With STORE it lists the orders in the store, without confirmations of sites.",
		example: "nightferry halt status\nnightferry halt status --lifted\nnightferry halt status file:///srv/store",
		max:     1,
		run: func(ctx context.Context, args []string) (err error) {
			if len(args) == 0 {
				return haltVerbs{e}.haltStatus(ctx, &core, all)
			}
			s, err := e.open(ctx, args[0], &f)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.close()) }()
			stored, err := s.Halts().Read(ctx)
			if err != nil {
				return err
			}
			if err := s.remember(); err != nil {
				return err
			}
			haltVerbs{e}.showHalts(stored.Orders, stored.Epoch)
			return nil
		},
	})
	f.add(cmd)
	core.add(cmd)
	cmd.Flags().BoolVar(&all, "lifted", false, "also the orders that were lifted, which only the Core knows")
	return cmd
}

// showLifted lists the orders that resume has lifted in the store.
func (g haltVerbs) showLifted(lifted []halt.Order) {
	g.e.event("resumed", struct {
		Orders []halt.Order `json:"orders"`
	}{append([]halt.Order{}, lifted...)})
	for _, o := range lifted {
		g.e.summary("order %s (%s) is lifted", o.ID.Short(), shown(o.Target()))
	}
}

// changeOrders edits the orders of the store's object, which may have been lost. It returns how many epochs to skip.
type changeOrders func(o *halt.Orders, lost bool) (skip uint64, err error)

// changeHalts changes the orders in the store. The argument lost of change
// reports whether the active orders were lost there. done is called before the
// orders are listed that are active then.
func (g haltVerbs) changeHalts(ctx context.Context, rawURL string, f *storeFlags, key ed25519.PrivateKey, change changeOrders, done func()) (err error) {
	s, err := g.e.open(ctx, rawURL, f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	// An order that no reader accepts would stop everybody, for ever.
	doc, _ := s.Trust().Current()
	if err := doc.Allows(repo.PublicOf(key), trust.Halts); err != nil {
		return err
	}
	if err := s.putHalt(ctx, key, change); err != nil {
		return err
	}
	stored, err := s.Halts().Read(ctx)
	if err != nil {
		return err
	}
	if err := s.remember(); err != nil {
		return err
	}
	done()
	g.showHalts(stored.Orders, stored.Epoch)
	return nil
}

// putHalt changes the orders in the store. It warns if the store has lost orders.
func (s *session) putHalt(ctx context.Context, key ed25519.PrivateKey, change changeOrders) error {
	_, was := s.Halts().Read(ctx)
	lost := repo.OrdersLost(was)
	if was != nil && !lost {
		return was
	}
	if _, err := s.Halts().Merge(ctx, key, func(stored *repo.HaltObject, _ bool) (floor uint64, err error) {
		skip, err := change(stored.Orders, lost)
		return stored.Epoch + skip, err
	}); err != nil {
		return err
	}
	if lost {
		s.e.warn("%v", was)
		s.e.warn("the halt object is written anew; orders that only the lost one held are discarded: give again those that are still meant")
	}
	return nil
}

func (g haltVerbs) showHalts(o *halt.Orders, epoch uint64) {
	g.e.event("halts", struct {
		Epoch  uint64       `json:"epoch"`
		Active []halt.Order `json:"active"`
	}{epoch, append([]halt.Order{}, o.Active...)})
	if g.e.json {
		return
	}
	if len(o.Active) == 0 {
		g.e.print("no order to stop is active (epoch %d)", epoch)
	}
	for _, a := range o.Active {
		what := a.Scope
		if a.Value != "" {
			what += " " + shown(a.Value)
		}
		g.e.print("order %s: stop %s, by %s at %s: %s", a.ID.Short(), what, shown(a.By), stamp(time.Unix(a.At, 0)), shown(a.Reason))
	}
}

// chosen returns the orders that a resume names: one by the beginning of its
// ID, else those of a scope.
func chosen(o *halt.Orders, id, scope, value string) ([]halt.Order, error) {
	if id == "" {
		return o.Given(scope, value), nil
	}
	found, err := o.Match(id)
	if found == nil {
		return nil, err
	}
	return []halt.Order{*found}, nil
}

// username is who gives an order, as this host knows them.
func username() string {
	name := "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if h := hostname(); h != "" {
		name += "@" + h
	}
	return name
}
