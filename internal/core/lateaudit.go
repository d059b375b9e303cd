package core

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"nightferry/internal/ledger"
	"nightferry/internal/vault"
)

// maxLate bounds the audit entries that wait for room.
const maxLate = 1000

// lateAudit writes the audit of the vault. While the ledger's volume is full, the Core itself may read its keys all the
// same, for the kill switch needs them: those entries wait in memory, and in the log, until there is room. Nothing else
// is allowed then.
type lateAudit struct {
	ledger audits
	report func(err error) // of an entry that waits

	mu   sync.Mutex
	late []ledger.Deed
}

// record writes an entry, after those that wait.
func (a *lateAudit) record(ctx context.Context, x vault.Access) error {
	what := x.Purpose
	if x.Version > 0 {
		what = fmt.Sprintf("version %d %s", x.Version, what)
	}
	d := ledger.Deed{Who: actorOf(ctx), What: "vault " + string(x.Op), Object: x.Name, Detail: what}
	a.mu.Lock()
	defer a.mu.Unlock()
	err := a.flushLate(ctx)
	if err == nil {
		err = a.ledger.Audit(ctx, d)
	}
	if !errors.Is(err, ledger.ErrFull) || a.report == nil || d.Who != coreActor || !reads(x.Op) || len(a.late) >= maxLate {
		return err
	}
	d.Detail += " (written late: the ledger's disk was full)"
	a.late = append(a.late, d)
	a.report(fmt.Errorf("%s %s: %w", d.What, d.Object, err))
	return nil
}

// flush writes the entries that wait, once there is room.
func (a *lateAudit) flush(ctx context.Context) {
	a.mu.Lock()
	defer a.mu.Unlock()
	_ = a.flushLate(ctx) // they go on waiting
}

func (a *lateAudit) flushLate(ctx context.Context) error {
	for len(a.late) > 0 {
		if err := a.ledger.Audit(ctx, a.late[0]); err != nil {
			return err
		}
		a.late = slices.Delete(a.late, 0, 1)
	}
	return nil
}

// reads reports whether an access changes nothing in the vault.
func reads(op vault.Op) bool { return op == vault.OpOpen || op == vault.OpGet || op == vault.OpList }
