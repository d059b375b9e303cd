package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"nightferry/internal/apply"
	"nightferry/internal/bucket"
	"nightferry/internal/bus"
	"nightferry/internal/durable"
	"nightferry/internal/spool"
	"nightferry/internal/wire"
)

// Finding is one thing that Check has looked at.
type Finding struct {
	What string // what was looked at
	Err  error  // nil: it is as it should be; an ErrUnproven: it could not be looked at
}

// ErrUnproven means that Check could not find out.
var ErrUnproven = errors.New("unproven")

// CheckOptions of Check.
type CheckOptions struct {
	StateDir string
	Env      func(string) string
	Now      func() time.Time // required
	Dial     DialFunc         // nil: Dial
}

// Check looks whether this account can do the agent's work, and nothing above
// it: write each allowed folder and not the one that it lies in, read the
// identity that nobody else can, reach Core and store, and tell the time. It
// leaves nothing behind, and may run beside the agent.
func Check(ctx context.Context, o CheckOptions) []Finding {
	if o.Dial == nil {
		o.Dial = Dial
	}
	var all []Finding
	id, err := Load(o.StateDir)
	all = append(all, Finding{"identity in " + o.StateDir, err})
	if err != nil {
		return all
	}
	if len(id.Allow) == 0 {
		all = append(all, Finding{"allowed folders", fmt.Errorf("there are none, so that every target will be refused: name them in %s", filepath.Join(o.StateDir, siteFile))})
	}
	for _, dir := range id.Allow {
		all = append(all, Finding{"write " + dir, checkWritable(dir)}, Finding{"not write above " + dir, notAbove(dir)})
	}
	all = append(all, checkTargets(ctx, id, o)...)
	return append(all, Finding{"Core", checkReach(ctx, id, o)}, Finding{"store " + id.Store + " and clock", checkClock(ctx, id, o)})
}

// checkTargets looks whether each target of the newest state can be written, as a run would.
func checkTargets(ctx context.Context, id *Identity, o CheckOptions) (all []Finding) {
	sp, err := spool.Look(ctx, filepath.Join(o.StateDir, spoolFile), o.Now)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the agent has not run yet
	}
	var state *wire.State
	if err == nil {
		state, err = readState(ctx, sp)
		err = errors.Join(err, sp.Close())
	}
	if err != nil {
		return []Finding{{"targets", fmt.Errorf("%w: %w", ErrUnproven, err)}}
	}
	if state == nil {
		return nil
	}
	for i := range state.Desired {
		d := &state.Desired[i]
		target, err := id.checkAllowed(d.Target)
		if err == nil {
			err = apply.CheckReadable(target)
		}
		if err == nil {
			err = apply.CheckWritable(target)
		}
		all = append(all, Finding{fmt.Sprintf("target of channel %s, %s", d.Channel, d.Target), err})
	}
	return all
}

const probeName = ".nightferry-check"

func checkWritable(dir string) (err error) {
	root, err := durable.Open(dir, durable.Options{})
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("it does not exist: make it, and give it to this account: %w", err)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	if err := root.Mkdir(probeName, 0o755); durable.IsReadOnly(err) {
		return &apply.ReadOnlyError{Dir: dir, Err: err}
	} else if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("give this account the right to write: %w", err)
	}
	err = root.WriteFile(probeName+"/file", []byte("nightferry-agent check\n"), 0o644)
	if err == nil {
		err = root.Rename(probeName+"/file", probeName+"/moved")
	}
	return errors.Join(err, root.RemoveAll(probeName))
}

// notAbove fails where this account can make files in the folder that dir lies
// in, or replace dir itself.
func notAbove(dir string) error {
	f, err := os.CreateTemp(filepath.Dir(dir), probeName+"-*")
	if errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if durable.IsReadOnly(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnproven, err)
	}
	name := f.Name()
	if err := errors.Join(f.Close(), os.Remove(name)); err != nil {
		return err
	}
	return fmt.Errorf("this account can write %s: give the agent an account of its own that may write the allowed folders only", filepath.Dir(dir))
}

func checkReach(ctx context.Context, id *Identity, o CheckOptions) (err error) {
	root, err := durable.Open(o.StateDir, durable.Options{Trusted: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	jwt, err := readJWT(root)
	if err != nil {
		return err
	}
	b, err := o.Dial(ctx, bus.ClientOptions{URLs: id.Core, Pins: []bus.Pin{bus.Pin(id.CA)}, Seed: id.seed, Name: id.Address().String() + " check",
		JWT: func() (string, error) { return jwt, nil }, Env: o.Env, Now: o.Now})
	if bus.IsUnwelcome(err) {
		return unwelcome(root, id.Site, o.Now(), err)
	}
	if err != nil {
		return err
	}
	defer b.Close()
	return b.Flush(ctx)
}

// checkClock compares this machine's clock with the store's.
func checkClock(ctx context.Context, id *Identity, o CheckOptions) error {
	date, err := storeTime(ctx, id.Store, o.Env)
	if err == nil && date.IsZero() {
		err = fmt.Errorf("%w: the store answers without its time, so that this machine's clock was compared with none", ErrUnproven)
	}
	if err != nil {
		return err
	}
	if d := date.Sub(o.Now()).Abs(); d > askew {
		return fmt.Errorf("this machine's clock and the store's are %s apart: set this machine's clock (time service)", d.Round(time.Second))
	}
	return nil
}

// storeTime asks the store for nothing; any answer has the time. It is zero
// where the store does not tell.
func storeTime(ctx context.Context, store string, env func(string) string) (time.Time, error) {
	t := &http.Transport{TLSHandshakeTimeout: 20 * time.Second, DisableKeepAlives: true}
	if env != nil {
		t.Proxy = bucket.Proxies(env)
		if err := bucket.TrustBundle(t, env); err != nil {
			return time.Time{}, err
		}
	}
	c := &http.Client{Transport: t, Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, store+"/", nil)
	if err != nil {
		return time.Time{}, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return time.Time{}, err
	}
	if err := resp.Body.Close(); err != nil {
		return time.Time{}, err
	}
	date, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return time.Time{}, nil //nolint:nilerr // it does not tell
	}
	return date, nil
}
