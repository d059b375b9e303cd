package ledger

import (
	"context"
	"fmt"
	"time"

	"nightferry/internal/digest"
	"nightferry/internal/trust"
)

// Measurement is the result of the Core reading a release's source.
type Measurement struct {
	Channel string              `json:"channel"`
	Number  trust.ReleaseNumber `json:"release"`
	Release trust.ReleaseDigest `json:"release_digest"`
	At      time.Time           `json:"at"` // when it ended
	Took    Seconds             `json:"took_seconds"`
	Run     RunID               `json:"run"` // its log lists every path

	// Expected values of sites that hold the release. They are as measured; for paths that have changed since, or that
	// could not be compared, they are as released.
	Tree  digest.Digest `json:"tree"`
	Files int64         `json:"files"`
	Bytes int64         `json:"bytes"`

	SourceFiles int64 `json:"source_files"` // files in the source now
	SourceBytes int64 `json:"source_bytes"`

	Same       int64 `json:"same"`       // paths equal to the release
	Moved      int64 `json:"moved_on"`   // paths edited, added or removed since the release
	Damaged    int64 `json:"damaged"`    // files with other bytes, but the same size and time
	Unreadable int64 `json:"unreadable"` // paths that could not be read

	// Parts of Moved, as the run counted them; all zero if the ledger no longer has the run.
	Changed int64 `json:"changed"` // another size, time or kind than published
	New     int64 `json:"new"`     // in the source, but in no release yet
	Gone    int64 `json:"gone"`    // published, but no longer in the source
}

const measurementColumns = "channel, number, release, at, took, run, tree, files, bytes, there, weighs, same, moved, damaged, unreadable"

// measurementRead lists the measurement's columns and the counts of its run.
const measurementRead = measurementColumns + `, coalesce((SELECT changed FROM runs WHERE id = run), 0),
	coalesce((SELECT added FROM runs WHERE id = run), 0), coalesce((SELECT deleted FROM runs WHERE id = run), 0)`

func scanMeasurement(s scanner, m *Measurement) error {
	return s.Scan(&m.Channel, &m.Number, digestBlob(&m.Release), moment{&m.At}, &m.Took, blob{m.Run[:]}, digestBlob(&m.Tree), &m.Files, &m.Bytes,
		&m.SourceFiles, &m.SourceBytes, &m.Same, &m.Moved, &m.Damaged, &m.Unreadable, &m.Changed, &m.New, &m.Gone)
}

// Set stores a measurement in place of an older one of the same release. Changed, New and Gone are not
// stored: they come from the run.
func (store *Measurements) Set(ctx context.Context, m Measurement) error {
	num, err := toInt64("release", m.Number)
	if err != nil {
		return err
	}
	return store.db.makeChange(ctx, fmt.Sprintf("keep the measurement of release %d of channel %s", m.Number, m.Channel), func(x *tx) error {
		return x.execSQL(`INSERT OR REPLACE INTO measurements (`+measurementColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			m.Channel, num, m.Release[:], toMicros(m.At), int64(m.Took), m.Run[:], m.Tree[:], m.Files, m.Bytes,
			m.SourceFiles, m.SourceBytes, m.Same, m.Moved, m.Damaged, m.Unreadable)
	})
}

// Of returns the measurement of a release, or ErrNotFound.
func (store *Measurements) Of(ctx context.Context, channel string, number trust.ReleaseNumber) (Measurement, error) {
	return queryOne(ctx, store.db.read, fmt.Sprintf("find the measurement of release %d of channel %s", number, channel), scanMeasurement,
		"SELECT "+measurementRead+" FROM measurements WHERE channel = ? AND number = ?", channel, int64(number))
}

// List lists the measurements of the newest n measured releases of a channel (0: 1 000), newest first. An empty
// channel means all channels.
func (store *Measurements) List(ctx context.Context, channel string, n int) ([]Measurement, error) {
	return queryAll(ctx, store.db.read, "list measurements", scanMeasurement,
		"SELECT "+measurementRead+" FROM measurements WHERE channel = ?1 OR ?1 = '' ORDER BY channel, number DESC LIMIT ?2", channel, rowLimit(n))
}
