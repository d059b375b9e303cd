package ledger

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"time"

	"nightferry/internal/clock"
	"nightferry/internal/digest"
)

// Seconds is a duration that JSON represents in seconds.
type Seconds = clock.Seconds

// limitDefault bounds lists without a limit.
const limitDefault = 1000

func rowLimit(n int) int {
	if n <= 0 {
		return limitDefault
	}
	return n
}

// toMicros converts a time to stored form; the zero time is 0.
func toMicros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// fromMicros is the reverse of micros.
func fromMicros(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

// moment scans a stored time.
type moment struct{ t *time.Time }

func (m moment) Scan(v any) error {
	us, ok := v.(int64)
	if !ok {
		return fmt.Errorf("time: want an integer, have %T", v)
	}
	*m.t = fromMicros(us)
	return nil
}

// blob scans bytes of a fixed length into an array.
type blob struct{ b []byte }

func (d blob) Scan(v any) error {
	b, ok := v.([]byte)
	if !ok || len(b) != len(d.b) {
		return fmt.Errorf("want %d bytes, have %T", len(d.b), v)
	}
	copy(d.b, b)
	return nil
}

func digestBlob[D ~[digest.Size]byte](d *D) blob { return blob{(*d)[:]} }

// bytesOf returns an empty slice for nil, which would be stored as NULL.
func bytesOf(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// toInt64 converts n to SQLite's integer range of 63 bits.
func toInt64[N ~uint64](what string, n N) (int64, error) {
	if n > math.MaxInt64 {
		return 0, fmt.Errorf("%s %d: the ledger holds at most %d", what, n, int64(math.MaxInt64))
	}
	return int64(n), nil
}

// rangeBounds converts two times to bounds of a half-open range; a zero time means no bound.
func rangeBounds(since, until time.Time) (from, to int64) {
	from, to = math.MinInt64, math.MaxInt64
	if !since.IsZero() {
		from = since.UnixMicro()
	}
	if !until.IsZero() {
		to = until.UnixMicro()
	}
	return from, to
}

// scanner is a row of a result, or the only one.
type scanner interface{ Scan(...any) error }

// queryOne reads a single row.
func queryOne[T any](ctx context.Context, db *sql.DB, act string, scan func(scanner, *T) error, query string, args ...any) (v T, err error) {
	if err := scan(db.QueryRowContext(ctx, query, args...), &v); err != nil {
		return v, fmt.Errorf("%s: %w", act, classifyError(err))
	}
	return v, nil
}

// querier runs queries. *sql.DB and *sql.Conn are queriers.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// queryAll reads all rows.
func queryAll[T any](ctx context.Context, db querier, act string, scan func(scanner, *T) error, query string, args ...any) ([]T, error) {
	var list []T
	err := queryEach(ctx, db, scan, func(v T) error { list = append(list, v); return nil }, query, args...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", act, classifyError(err))
	}
	return list, nil
}

// queryEach calls fn for each row.
func queryEach[T any](ctx context.Context, db querier, scan func(scanner, *T) error, fn func(T) error, query string, args ...any) error {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // Err has the error
	for rows.Next() {
		var v T
		if err := scan(rows, &v); err != nil {
			return err
		}
		if err := fn(v); err != nil {
			return err
		}
	}
	return rows.Err()
}
