package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"

	"nightferry/internal/apply"
	"nightferry/internal/fleet"
	"nightferry/internal/runs"
	"nightferry/internal/scan"
	"nightferry/internal/spool"
	"nightferry/internal/wire"
)

// The agent remembers outside of a target that it has filled the target, because the target's volume may be absent. If
// that memory is lost as well, the Core's takes its place: each run that finds content of a release reports the place,
// and the Core hands it back with the desired state.

// fills is that memory.
type fills struct {
	spool   *spool.Spool
	machine []byte                             // Options.Machine
	desired func(channel string) *wire.Desired // nil: none
}

// heldIn returns the known facts of the release of a channel that a target held, or nil if there are none.
func (f *fills) heldIn(ctx context.Context, channel, target string) *apply.Held {
	filled, err := f.spool.Filled(ctx, channel)
	if err == nil && !slices.ContainsFunc(filled, func(t string) bool { return fleet.SameFolder(t, target) }) {
		return f.formerIn(channel, target)
	}
	held := &apply.Held{}
	holds, err := f.spool.Holds(ctx)
	if h := findHeld(holds, channel); err == nil && h != nil && fleet.SameFolder(h.Target, target) {
		held.Applied = apply.Applied{Number: h.Number, Release: h.Release}
	}
	return held
}

// formerIn returns the Core's record of a target, or nil.
func (f *fills) formerIn(channel, target string) *apply.Held {
	d := f.desired(channel)
	if d == nil || !d.Former.Filled || d.Target != target {
		return nil
	}
	return &apply.Held{Applied: apply.Applied{Number: d.Former.Number, Release: d.Former.Release}, Replaced: f.isReplaced(target, &d.Former.Place)}
}

// isReplaced reports whether another machine has filled a target, so that an empty folder is to be expected here. It is
// not if the target had a volume of its own there and has none here: that one is not mounted yet. A machine that is not
// known counts as the same.
func (f *fills) isReplaced(target string, was *wire.Place) bool {
	if len(f.machine) == 0 || len(was.Machine) == 0 || bytes.Equal(f.machine, was.Machine) {
		return false
	}
	now, err := volumeOf(target)
	return err == nil && (fleet.SameFolder(now, was.Volume) || !fleet.Within(was.Volume, now))
}

// isKnown reports whether this machine has, or may have, held a release of a channel in a target.
func (f *fills) isKnown(ctx context.Context, channel, target string) bool {
	h := f.heldIn(ctx, channel, target)
	return h != nil && !h.Replaced
}

// filledPlace returns the place to report of a run that ended in state, or the zero Place if the run may not have found
// content of a release.
func (f *fills) filledPlace(ctx context.Context, channel, target string, state runs.State, proven bool) wire.Place {
	if !proven && (state != runs.Incomplete && state != runs.Unowned || f.heldIn(ctx, channel, target) == nil) {
		return wire.Place{}
	}
	volume, err := volumeOf(target)
	if err != nil {
		volume = ""
	}
	return wire.Place{Target: target, Volume: volume, Machine: f.machine}
}

// volumeOf returns the mount point of the volume that holds a folder, or would hold it.
func volumeOf(dir string) (string, error) {
	for {
		at, err := scan.MountOf(dir)
		if up := filepath.Dir(dir); errors.Is(err, fs.ErrNotExist) && up != dir {
			dir = up
			continue
		}
		return at, err
	}
}

// thisMachine returns bytes that differ between machines, or nil if the system has no id. The id itself is not revealed.
func thisMachine(repo []byte) []byte {
	id, err := systemID()
	if err != nil || id == "" {
		return nil
	}
	sum := sha256.Sum256(append([]byte("nightferry machine\x00"+id+"\x00"), repo...))
	return sum[:wire.MachineSize]
}

// unownedText is the cause of a run whose target has lost the record of the files that are ours in it.
var unownedText = apply.ErrUnowned.Error() + ": nightferry sync --adopt declares them the site's own, prune: true deletes them"
