package core_test

import (
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"nightferry/internal/agent"
	"nightferry/internal/core"
	"nightferry/internal/durable"
	"nightferry/internal/fleet"
	"nightferry/internal/ledger"
	"nightferry/internal/runs"
)

// refuser returns an error for chosen changes.
type refuser func(durable.Op) error

func (r refuser) Before(op durable.Op) error { return r(op) }

// TestEmptiedTargetIsOneIncident: a target that lost its release is one incident, whatever runs find it, with a remedy
// that works. It ends when a run has proven the target: a run that failed may not have seen the record.
func TestEmptiedTargetIsOneIncident(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.write("a.txt", "one")
	w.publish("package")
	var readOnly atomic.Bool
	state, err := w.enter("osaka", nil)
	if err != nil {
		t.Fatal(err)
	}
	w.agent(state, func(o *agent.Options) {
		o.Observer = refuser(func(op durable.Op) error {
			if readOnly.Load() && op.Kind != durable.Probe {
				return syscall.EROFS
			}
			return nil
		})
	})
	w.untilCurrent(1, "osaka")

	target := w.folder("osaka", "package")
	if err := os.Rename(target, target+".unmounted"); err != nil {
		t.Fatal(err)
	}
	scope := fleet.Scope{Site: "osaka", Channel: "package"}
	emptied := func(atLeast int) {
		t.Helper()
		w.until("runs that find nothing", func() bool {
			now, err := w.core.Query.Runs(t.Context(), ledger.RunFilter{Site: "osaka", State: runs.Emptied})
			return err == nil && len(now) >= atLeast
		})
		if open := w.openKeys(); !slices.Equal(open, []string{"target-emptied/package"}) {
			t.Errorf("open are %q", open)
		}
	}
	verify := func(r core.VerifyRequest) {
		t.Helper()
		r.Scope = scope
		if _, err := w.core.Orders.Verify(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	verify(core.VerifyRequest{Full: true})
	emptied(1)
	verify(core.VerifyRequest{Repair: true})
	emptied(3) // it is tried again
	list, err := w.core.Query.Incidents(t.Context(), false)
	if err != nil || len(list) != 1 || !strings.Contains(list[0].Text, target) || !strings.Contains(list[0].Remedy, "nightferry verify --site NAME --channel CHANNEL") {
		t.Errorf("%+v, %v", list, err)
	}

	// The volume is back, and cannot be written to.
	readOnly.Store(true)
	if err := os.Rename(target+".unmounted", target); err != nil {
		t.Fatal(err)
	}
	w.write("a.txt", "two")
	w.publish("package")
	w.until("the incident of the present failure", func() bool {
		return slices.Equal(slices.Sorted(slices.Values(w.openKeys())), []string{"run/package", "target-emptied/package"})
	})
	readOnly.Store(false)
	w.untilCurrent(2, "osaka")
	w.until("the end of all incidents", func() bool { return len(w.openKeys()) == 0 })
}
