package spool

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"nightferry/internal/text"
	"nightferry/internal/wire"
)

// File is the actual or intended outcome of a path. Path is always set; the embedded wire.File names the path
// by ordinal if it has one.
type File struct {
	Path string
	wire.File
}

// The states of outcomes that are not events yet.
const (
	told     = iota // of a pass that has committed nothing so far
	intended        // of a commit whose journal may exist
	settled         // of a commit that happened
)

const (
	chunkOutcomes = 2000
	chunkBytes    = 256 << 10
	maxCause      = 300
)

// pathKey returns a 64-bit hash of a path. Among a million paths, the chance that two collide is below 1 in 10^7. A
// collision makes the count of one file missing.
func pathKey(path string) uint64 {
	sum := sha256.Sum256([]byte(path))
	return binary.BigEndian.Uint64(sum[:])
}

// group collects outcomes for one row.
type group struct {
	keys []byte
	all  []wire.File
	size int
}

func (g *group) addOutcome(k uint64, o wire.File) {
	o.Cause = text.Bound(o.Cause, maxCause)
	for _, text := range []*string{&o.Path, &o.From, &o.Cause} {
		*text = strings.ToValidUTF8(*text, "\uFFFD") // the site's own names may hold any bytes
	}
	g.keys = binary.BigEndian.AppendUint64(g.keys, k)
	g.all = append(g.all, o)
	g.size += len(o.Path) + len(o.From) + len(o.Cause) + 8
}

func (g *group) isFull() bool { return len(g.all) >= chunkOutcomes || g.size >= chunkBytes }

func (g *group) writeChunk(ctx context.Context, tx *sql.Tx, channel string, state int, pass int64) error {
	if len(g.all) == 0 {
		return nil
	}
	body, err := wire.EncodeOutcomes(g.all)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "INSERT INTO outcomes (channel, state, pass, keys, body) VALUES (?, ?, ?, ?, ?)", channel, state, pass, g.keys, body)
	g.keys, g.all, g.size = g.keys[:0], g.all[:0], 0
	return err
}

// Each calls yield for every outcome until it returns an error.
type Each func(yield func(File) error) error

// insertOutcomes appends outcomes, in rows of limited size. mergeOutcomes picks the last outcome of each path.
func insertOutcomes(ctx context.Context, tx *sql.Tx, channel string, state int, pass int64, each Each) error {
	var g group
	err := each(func(o File) error {
		g.addOutcome(pathKey(o.Path), o.File)
		if !g.isFull() {
			return nil
		}
		return g.writeChunk(ctx, tx, channel, state, pass)
	})
	if err != nil {
		return err
	}
	return g.writeChunk(ctx, tx, channel, state, pass)
}

// Pass starts one more attempt of the run and returns its number. It deletes outcomes that earlier attempts only
// told, because those attempts committed nothing.
func (s *Spool) Pass(ctx context.Context, channel string) (pass int64, err error) {
	err = s.runChange(ctx, "begin an attempt", func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "DELETE FROM outcomes WHERE channel = ? AND state = ?", channel, told); err != nil {
			return err
		}
		return tx.QueryRowContext(ctx, "SELECT coalesce(max(pass), 0) + 1 FROM outcomes WHERE channel = ?", channel).Scan(&pass)
	})
	return pass, err
}

// Tell stores outcomes that need no commit: failed changes, the site's own files, and the plan of a dry run. pass
// is the attempt's number, from 1.
func (s *Spool) Tell(ctx context.Context, channel string, pass int64, all []File) error {
	return s.runChange(ctx, "spool outcomes", func(tx *sql.Tx) error {
		return insertOutcomes(ctx, tx, channel, told, pass, func(yield func(File) error) error {
			for i := range all {
				if err := yield(all[i]); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// Intend stores the outcomes of a commit that is about to start. They must be durable before the commit's journal.
// Intend deletes earlier intended outcomes, because that commit did not happen.
func (s *Spool) Intend(ctx context.Context, channel string, pass int64, each Each) error {
	return s.runChange(ctx, "spool the commit's intended outcomes", func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "DELETE FROM outcomes WHERE channel = ? AND state = ?", channel, intended); err != nil {
			return err
		}
		return insertOutcomes(ctx, tx, channel, intended, pass, each)
	})
}

// Settle marks the intended outcomes as having happened, except for those in other, which it replaces. It must be
// durable before the commit's journal is removed. A second call for the same commit changes nothing.
func (s *Spool) Settle(ctx context.Context, channel string, pass int64, other []File) error {
	return s.runChange(ctx, "spool the commit's outcomes", func(tx *sql.Tx) error {
		r, err := tx.ExecContext(ctx, "UPDATE outcomes SET state = ? WHERE channel = ? AND state = ?", settled, channel, intended)
		if err != nil {
			return err
		}
		if n, err := r.RowsAffected(); err != nil || n == 0 {
			return err
		}
		if err := addFilled(ctx, tx, channel); err != nil {
			return err
		}
		// The later outcome of a path counts, see merge.
		ordinals, err := ordinalsOf(ctx, tx, channel, other)
		if err != nil {
			return err
		}
		return insertOutcomes(ctx, tx, channel, settled, pass, func(yield func(File) error) error {
			for _, o := range other {
				if n, ok := ordinals[pathKey(o.Path)]; ok && o.File.Path != "" {
					o.File.Path, o.Ordinal = "", n
				}
				if err := yield(o); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// ordinalsOf finds the ordinals of paths among the channel's outcomes, because a commit that is rolled forward
// knows only paths.
func ordinalsOf(ctx context.Context, tx *sql.Tx, channel string, of []File) (map[uint64]uint64, error) {
	wanted := map[uint64]uint64{}
	if len(of) == 0 {
		return nil, nil
	}
	search := map[uint64]struct{}{}
	for i := range of {
		search[pathKey(of[i].Path)] = struct{}{}
	}
	err := eachRow(ctx, tx, channel, "", func(keys []uint64, body []byte) error {
		if !slices.ContainsFunc(keys, func(k uint64) bool { _, ok := search[k]; return ok }) {
			return nil
		}
		all, err := wire.DecodeOutcomes(body)
		if err != nil {
			return err
		}
		for i, k := range keys {
			if _, ok := search[k]; ok && i < len(all) && all[i].Path == "" {
				wanted[k] = all[i].Ordinal
			}
		}
		return nil
	})
	return wanted, err
}

// eachRow calls fn for the channel's rows that match filter, oldest first. fn must not use the transaction.
func eachRow(ctx context.Context, tx *sql.Tx, channel, filter string, fn func(keys []uint64, body []byte) error) (err error) {
	r, err := tx.QueryContext(ctx, "SELECT keys, body FROM outcomes WHERE channel = ? "+filter+" ORDER BY n", channel)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	for r.Next() {
		var raw, body []byte
		if err := r.Scan(&raw, &body); err != nil {
			return err
		}
		keys := make([]uint64, len(raw)/8)
		for i := range keys {
			keys[i] = binary.BigEndian.Uint64(raw[8*i:])
		}
		if err := fn(keys, body); err != nil {
			return err
		}
	}
	return r.Err()
}

const happened = "AND state <> 1"

// mergeOutcomes turns the run's outcomes into events. If a path has several outcomes, it uses the last.
func mergeOutcomes(ctx context.Context, tx *sql.Tx, r Run, at int64, c *Counts) error {
	var all []uint64
	err := eachRow(ctx, tx, r.Channel, happened, func(keys []uint64, _ []byte) error {
		all = append(all, keys...)
		return nil
	})
	if err != nil {
		return err
	}
	// Count, for each path with several outcomes, how many are still to come.
	slices.Sort(all)
	more := map[uint64]int{}
	for i := 1; i < len(all); i++ {
		if all[i] == all[i-1] {
			more[all[i]]++
		}
	}
	all = nil
	var last int64
	if err := tx.QueryRowContext(ctx, "SELECT coalesce(max(n), 0) FROM outcomes WHERE channel = ?", r.Channel).Scan(&last); err != nil {
		return err
	}
	// Read one row at a time: the transaction has one connection, and the outcomes may be large.
	for n := int64(0); n < last; {
		var pass int64
		var raw, body []byte
		err := tx.QueryRowContext(ctx, "SELECT n, pass, keys, body FROM outcomes WHERE channel = ? AND n > ? "+happened+" ORDER BY n LIMIT 1", r.Channel, n).Scan(&n, &pass, &raw, &body)
		if errors.Is(err, sql.ErrNoRows) {
			break
		}
		if err != nil {
			return err
		}
		got, err := wire.DecodeOutcomes(body)
		if err != nil {
			return err
		}
		if len(raw) != 8*len(got) {
			return fmt.Errorf("%w: outcomes without their paths", errCorrupt)
		}
		kept := got[:0]
		for i := range got {
			k := binary.BigEndian.Uint64(raw[8*i:])
			if more[k] > 0 {
				more[k]--
				continue
			}
			o := got[i]
			c.Add(o.Outcome)
			c.Sent++
			if pass < r.Pass && o.Path == "" {
				c.Previous++
			}
			kept = append(kept, o)
		}
		if len(kept) == 0 {
			continue
		}
		if len(kept) < len(raw)/8 {
			if body, err = wire.EncodeOutcomes(kept); err != nil {
				return err
			}
		}
		if err := appendEvent(ctx, tx, &wire.Event{Run: r.ID, Channel: r.Channel, At: at, Kind: wire.OutcomesEvent, Body: body}); err != nil {
			return err
		}
	}
	return nil
}
