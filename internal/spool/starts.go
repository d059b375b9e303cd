package spool

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"

	"nightferry/internal/wire"
)

// Starts is the record of the processes that have started from this database, see wire.Hello. A copy of the database
// continues it on its own, so that the copies differ after their next start.
type Starts struct {
	Lineage []byte // 16 random bytes
	Count   uint64
	Latest  []byte // wire.StartID bytes of each process, newest first
}

const lineageSize = 16

// Start records the start of a process, which is durable when Start returns.
func (s *Spool) Start(ctx context.Context, instance []byte) (r Starts, err error) {
	err = s.runChange(ctx, "record this start", func(tx *sql.Tx) error {
		var b []byte
		err := tx.QueryRowContext(ctx, "SELECT value FROM meta WHERE key = 'starts'").Scan(&b)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			b = make([]byte, lineageSize+8)
			rand.Read(b[:lineageSize]) // never fails
		case err != nil:
			return err
		case len(b) < lineageSize+8:
			return fmt.Errorf("the record of starts has %d bytes", len(b))
		}
		r.Lineage, r.Count = b[:lineageSize:lineageSize], binary.BigEndian.Uint64(b[lineageSize:])+1
		r.Latest = append(append([]byte{}, instance[:wire.StartID]...), b[lineageSize+8:]...)
		r.Latest = r.Latest[:min(len(r.Latest), wire.StartID*wire.MaxStarted)]
		next := append(binary.BigEndian.AppendUint64(r.Lineage, r.Count), r.Latest...)
		_, err = tx.ExecContext(ctx, setMeta, "starts", next)
		return err
	})
	if err != nil {
		return Starts{}, err
	}
	return r, nil
}
