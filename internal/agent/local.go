package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"nightferry/internal/durable"
	"nightferry/internal/halt"
	"nightferry/internal/text"
	"nightferry/internal/wire"
)

// Files of a state directory by which a site is stopped by those who run it,
// whatever becomes of the Core.
const (
	haltFile    = "halted.json"  // the order; it lasts until it is removed
	stoppedFile = "stopped.json" // the running agent's word that it obeys it
	// localEvery is how often the agent looks for the order.
	localEvery = 200 * time.Millisecond
)

// LocalHalt is an order to stop that was given on the site itself.
type LocalHalt struct {
	Reason  string    `json:"reason"`
	By      string    `json:"by"`
	At      time.Time `json:"at"`
	Running bool      `json:"-"` // an agent runs
	Stopped time.Time `json:"-"` // when that agent's last byte had moved; zero: it has not said so
	Bytes   int64     `json:"-"` // that came from the store between order and stop
}

// localStop is the content of stoppedFile.
type localStop struct {
	Order   time.Time `json:"order"`
	Stopped time.Time `json:"stopped"`
	Bytes   int64     `json:"bytes"`
}

// Halt stops the site of a state directory, until Resume. The order is durable
// when it returns; LookHalt tells whether a running agent obeys it.
func Halt(stateDir string, h LocalHalt) error {
	root, err := openSite(stateDir)
	if err != nil {
		return fmt.Errorf("halt: %w", err)
	}
	h.Reason, h.By = text.Clean(h.Reason, halt.MaxReason), text.Clean(h.By, halt.MaxValue)
	b, err := json.Marshal(&h)
	if err == nil {
		err = removeFile(root, stoppedFile)
	}
	if err == nil { // a running agent looks into it
		err = durable.Patiently(func() error { return writeOwn(root, haltFile, append(b, '\n')) })
	}
	if err = errors.Join(err, root.Close()); err != nil {
		return fmt.Errorf("halt: the order cannot be kept: %w", err)
	}
	return nil
}

// ErrNoHalt reports that Resume has nothing to lift.
var ErrNoHalt = errors.New("no halt order was given on this site; a halt order of the Core is lifted there, with nightferry resume")

// Resume lifts the order that Halt gave.
func Resume(stateDir string) error {
	root, err := openSite(stateDir)
	if err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	err = durable.Patiently(func() error { return removeOrKeep(root, haltFile) })
	if err == nil {
		err = errors.Join(root.SyncDir("."), removeFile(root, stoppedFile))
	}
	err = errors.Join(err, root.Close())
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNoHalt
	}
	if err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	return nil
}

// LookHalt returns the order that stops the site of a state directory; nil:
// there is none.
func LookHalt(stateDir string) (*LocalHalt, error) {
	root, err := openSite(stateDir)
	if err != nil {
		return nil, err
	}
	h, err := lookHalt(root)
	return h, errors.Join(err, root.Close())
}

func lookHalt(root *durable.Root) (*LocalHalt, error) {
	h, err := readHaltFile(root)
	if h == nil || err != nil {
		return nil, err
	}
	if h.Running, err = isRunning(root); err != nil {
		return nil, err
	}
	var s localStop
	b, err := readSmall(root, stoppedFile)
	if err == nil && json.Unmarshal(b, &s) == nil && s.Order.Equal(h.At) {
		h.Stopped, h.Bytes = s.Stopped, s.Bytes
	}
	return h, nil
}

// isRunning reports whether an agent runs in a state directory.
func isRunning(root *durable.Root) (bool, error) {
	unlock, err := durable.Lock(root, lockFile)
	if errors.Is(err, durable.ErrBusy) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, unlock()
}

// IsEnrolled returns an error, such as ErrNotEnrolled, if a state directory has no identity. It reads no file there.
func IsEnrolled(stateDir string) error {
	info, err := os.Lstat(filepath.Join(stateDir, siteFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: %w", stateDir, ErrNotEnrolled)
	case err == nil && !info.Mode().IsRegular():
		return fmt.Errorf("%s: %s is not a file", stateDir, siteFile)
	}
	return err
}

// openSite opens the state directory of an enrolled site for its operators, and
// not only for its agent: see durable.Options.Keeper.
func openSite(stateDir string) (*durable.Root, error) {
	root, err := durable.Open(stateDir, durable.Options{Trusted: true, Keeper: true})
	if err == nil {
		if _, err = root.Lstat(siteFile); err == nil {
			return root, nil
		}
		err = errors.Join(err, root.Close())
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%s: %w", stateDir, ErrNotEnrolled)
	}
	return nil, err
}

// readSmall reads a file of the state directory, of at most maxSite bytes.
func readSmall(root *durable.Root, name string) ([]byte, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSite+1))
	if err == nil && len(b) > maxSite {
		err = fmt.Errorf("%s is too large: at most %d bytes", name, maxSite)
	}
	return b, errors.Join(err, f.Close())
}

func readHaltFile(root *durable.Root) (*LocalHalt, error) {
	b, err := readSmall(root, haltFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	h := new(LocalHalt)
	if err := json.Unmarshal(b, h); err != nil {
		return nil, fmt.Errorf("%s is damaged: nightferry-agent resume lifts the order, halt gives it anew: %w", haltFile, err)
	}
	h.Reason, h.By = text.Clean(h.Reason, halt.MaxReason), text.Clean(h.By, halt.MaxValue)
	return h, nil
}

func removeFile(root *durable.Root, name string) error {
	if err := durable.Patiently(func() error { return removeOrKeep(root, name) }); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// writeOwn writes a file of the state directory. It sets aside an entry that is not a file.
func writeOwn(root *durable.Root, name string, b []byte) error {
	if _, err := durable.MakeRoom(root, name, false); err != nil {
		return err
	}
	return root.WriteFile(name, b, 0o600)
}

// removeOrKeep removes a file. It keeps an entry that is not a file under another name.
func removeOrKeep(root *durable.Root, name string) error {
	if info, err := root.Lstat(name); err == nil && !info.Mode().IsRegular() {
		_, err = durable.SetAside(root, name)
		return err
	}
	return root.Remove(name)
}

// readLocal takes up the order on this site, and reports whether it is new or
// gone. An order that cannot be read stops the site. It is called with h.mu held.
func (h *haltState) readLocal() bool {
	file, err := readHaltFile(h.s.root)
	var now *halt.Order
	at := h.localAt
	switch {
	case err != nil:
		now = &halt.Order{Scope: halt.Site, Value: h.s.id.Site, By: "this site", Reason: "the order given here cannot be read: " + text.Clean(err.Error(), 512)}
	case file != nil:
		now = &halt.Order{Scope: halt.Site, Value: h.s.id.Site, By: file.By, Reason: file.Reason, At: file.At.Unix()}
		at = file.At // of two that are given within a second, each is confirmed
	}
	if now == nil && h.local == nil || now != nil && h.local != nil && *now == *h.local && at.Equal(h.localAt) {
		return false
	}
	h.localAt = at
	if h.local != nil {
		delete(h.stops, halt.ID{}) // another order, or none
	}
	h.local = now
	return true
}

// watchLocal obeys the order on this site, and its end.
func (h *haltState) watchLocal(ctx context.Context) error {
	return everyPeriod(ctx, localEvery, func() {
		arrived := h.movedBytes()
		h.mu.Lock()
		changed := h.readLocal()
		order := h.local
		if changed {
			h.stopHalted(arrived)
		}
		h.mu.Unlock()
		if !changed {
			return
		}
		if order != nil {
			h.s.logNote(Warning, "", "stopped on this site by "+order.By+": "+order.Reason, nil)
		} else {
			h.s.logNote(Info, "", "the order to stop that was given on this site is lifted", nil)
		}
		h.work.wake()
	})
}

// confirmLocal leaves word for who gave the order on this site.
func (h *haltState) confirmLocal(obeyed []wire.Stop) {
	if len(obeyed) == 0 || !obeyed[0].Order.IsZero() {
		return
	}
	h.mu.Lock()
	s := localStop{Order: h.localAt, Stopped: time.UnixMilli(obeyed[0].At), Bytes: obeyed[0].Bytes}
	h.mu.Unlock()
	b, err := json.Marshal(&s)
	if err == nil {
		err = durable.Patiently(func() error { return writeOwn(h.s.root, stoppedFile, append(b, '\n')) }) // LookHalt reads it
	}
	if err != nil {
		h.s.logNote(Warning, "", "the stop of this site cannot be shown on it", err)
	}
}

// everyPeriod calls fn after each period until ctx ends.
func everyPeriod(ctx context.Context, period time.Duration, fn func()) error {
	t := time.NewTicker(period)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			fn()
		}
	}
}
