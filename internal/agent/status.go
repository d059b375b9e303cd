package agent

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"nightferry/internal/durable"
	"nightferry/internal/halt"
	"nightferry/internal/spool"
	"nightferry/internal/trust"
	"nightferry/internal/wire"
)

// Status holds a site's own records.
type Status struct {
	Identity *Identity
	Running  bool // an agent runs
	Core     CoreLink
	Refusal  *UnwelcomeError // nil: the Core did not refuse the site
	Local    *LocalHalt      // order to stop that was given on the site; nil: none
	Halts    []halt.Order    // of the Core or the store, that stop the site or a channel of it
	Channels []ChannelStatus
	Stated   time.Time // of the desired state, by the Core's clock; zero: there is none
	Runs     []spool.Run
	Failures []spool.Failure // the last run of each channel, if it did not end well
	Problems []spool.OpenProblem
	Spooled  uint64 // events that the Core has not acknowledged
}

// ChannelStatus is a channel that the site holds or that the Core wants there.
type ChannelStatus struct {
	Channel string
	Held    *spool.Held   // nil: no release
	Wanted  *wire.Desired // nil: the Core wants nothing, as far as the site knows
}

// ReadStatus may be called beside the agent. With an error it returns the readable part; Identity is set if there is
// one.
func ReadStatus(ctx context.Context, dir string, now func() time.Time) (s Status, err error) {
	root, err := openSite(dir)
	if err != nil {
		return s, fmt.Errorf("read the site's state: %w", err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	b, err := readSmall(root, siteFile)
	if err == nil {
		s.Identity, err = parseSite(dir, b)
	}
	if err != nil {
		return s, fmt.Errorf("read the site's identity: %w", err)
	}
	if s.Running, err = isRunning(root); err != nil {
		return s, err
	}
	var lerr error // the rest is shown all the same
	s.Core, lerr = readLink(root)
	defer func() { err = errors.Join(err, lerr) }()
	s.Core.Connected = s.Core.Connected && s.Running
	if s.Core.Refused {
		s.Refusal = unwelcome(root, s.Identity.Site, now(), nil)
	}
	local, herr := lookHalt(root)
	s.Local, lerr = local, errors.Join(lerr, herr)
	sp, err := spool.Look(ctx, filepath.Join(dir, spoolFile), now)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil // it has not run yet
	}
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, sp.Close()) }()
	err = s.readSpool(ctx, sp, root, now)
	return s, err
}

func (s *Status) readSpool(ctx context.Context, sp *spool.Spool, root *durable.Root, now func() time.Time) error {
	holds, err := sp.Holds(ctx)
	if err != nil {
		return err
	}
	state, err := readState(ctx, sp)
	if err != nil {
		return err
	}
	if state != nil {
		s.Stated = time.UnixMilli(state.At).UTC()
	}
	s.joinChannels(holds, state)
	if s.Runs, err = sp.Runs(ctx); err != nil {
		return err
	}
	if s.Problems, err = sp.Problems(ctx); err != nil {
		return err
	}
	if s.Failures, err = sp.Failures(ctx); err != nil {
		return err
	}
	if s.Spooled, _, err = sp.Spooled(ctx); err != nil {
		return err
	}
	return s.readHalts(ctx, sp, root, state, now)
}

// readState returns the newest state of the Core; nil: there is none.
func readState(ctx context.Context, sp *spool.Spool) (*wire.State, error) {
	kept, err := sp.Kept(ctx, spool.State)
	if err != nil || len(kept.Object) == 0 {
		return nil, err
	}
	state := new(wire.State)
	if wire.Decode(kept.Object, state) != nil {
		return nil, nil // of an older program: the agent asks for it again
	}
	return state, nil
}

func (s *Status) joinChannels(holds []spool.Held, state *wire.State) {
	for i := range holds {
		s.Channels = append(s.Channels, ChannelStatus{Channel: holds[i].Channel, Held: &holds[i], Wanted: findDesired(state, holds[i].Channel)})
	}
	if state == nil {
		return
	}
	for i := range state.Desired {
		if d := &state.Desired[i]; findHeld(holds, d.Channel) == nil {
			s.Channels = append(s.Channels, ChannelStatus{Channel: d.Channel, Wanted: d})
		}
	}
}

// readHalts reads the orders that the agent obeys. They were checked when they were accepted.
func (s *Status) readHalts(ctx context.Context, sp *spool.Spool, root *durable.Root, state *wire.State, now func() time.Time) error {
	kept, err := sp.Kept(ctx, spool.Halt)
	if err != nil || len(kept.Object) == 0 {
		return err
	}
	id := *s.Identity
	if b, err := readSmall(root, keyFile); err == nil {
		if id.repo, err = hex.DecodeString(strings.TrimSpace(string(b))); err != nil {
			return errors.New("read the repository's key: it is damaged: enroll this site again")
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	h := newHaltState(&session{id: &id, o: Options{Now: now}}, nil)
	if state != nil {
		h.region = state.Region
		for i := range state.Desired {
			h.channels = append(h.channels, state.Desired[i].Channel)
		}
	}
	signed, err := trust.Parse(halt.Kind, halt.Version, halt.Max, kept.Object)
	if err != nil {
		return fmt.Errorf("the halts that were kept: %w", err)
	}
	orders, err := h.readOrders(signed)
	if err != nil {
		return fmt.Errorf("the halts that were kept: %w", err)
	}
	for _, o := range orders.Active {
		if h.concernsSite(o) {
			s.Halts = append(s.Halts, o)
		}
	}
	return nil
}
