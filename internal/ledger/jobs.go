package ledger

import (
	"context"
	"strings"
	"time"
)

// Job is long work that a client has asked for.
type Job struct {
	ID                            string
	Kind                          string // publish, sync or verify
	Who                           string
	Domain, Region, Site, Channel string // its scope
	Request                       []byte // JSON
	Started, Ended                time.Time
	State                         string
	Error                         []byte // JSON; empty: none
	Lines                         []byte // of its result, JSON
}

const jobColumns = "id, kind, who, domain, region, site, channel, request, started, ended, state, error, lines"

func scanJob(s scanner, j *Job) error {
	var request, failure string
	err := s.Scan(&j.ID, &j.Kind, &j.Who, &j.Domain, &j.Region, &j.Site, &j.Channel, &request, moment{&j.Started}, moment{&j.Ended}, &j.State, &failure, &j.Lines)
	j.Request, j.Error = []byte(request), []byte(failure)
	return err
}

// Add stores a job that starts.
func (store *Jobs) Add(ctx context.Context, j Job) error {
	return store.db.makeChange(ctx, "store a job", func(x *tx) error {
		return x.execSQL("INSERT INTO jobs (id, kind, who, domain, region, site, channel, request, started, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
			j.ID, j.Kind, j.Who, j.Domain, j.Region, j.Site, j.Channel, string(j.Request), toMicros(j.Started), j.State)
	})
}

// Finish stores the end of a job.
func (store *Jobs) Finish(ctx context.Context, j Job) error {
	return store.db.makeChange(ctx, "store the end of a job", func(x *tx) error {
		return x.execSQL("UPDATE jobs SET ended = ?, state = ?, error = ?, lines = ? WHERE id = ? AND ended = 0",
			toMicros(j.Ended), j.State, string(j.Error), bytesOf(j.Lines), j.ID)
	})
}

// Interrupt ends the jobs of an earlier process.
func (store *Jobs) Interrupt(ctx context.Context, state string, at time.Time) error {
	return store.db.makeChange(ctx, "end the jobs of the process before", func(x *tx) error {
		return x.execSQL("UPDATE jobs SET ended = max(?, started), state = ? WHERE ended = 0", toMicros(at), state)
	})
}

// List lists jobs without their requests and lines, the newest first: those that started before the job named by after, if it is not empty.
func (store *Jobs) List(ctx context.Context, after string, limit int) ([]Job, error) {
	return queryAll(ctx, store.db.read, "list jobs", scanJob,
		"SELECT id, kind, who, domain, region, site, channel, '', started, ended, state, error, x'' FROM jobs WHERE ?1 = '' OR seq < (SELECT seq FROM jobs WHERE id = ?1) ORDER BY seq DESC LIMIT ?2", after, rowLimit(limit))
}

// Get returns the job whose id starts with the hexadecimal digits of prefix. ErrNotFound: there is none, or several, so that
// nobody learns of a job that they may not see.
func (store *Jobs) Get(ctx context.Context, prefix string) (Job, error) {
	if prefix == "" {
		return Job{}, ErrNotFound
	}
	found, err := queryAll(ctx, store.db.read, "read a job", scanJob, // 'g' comes after all digits
		"SELECT "+jobColumns+" FROM jobs WHERE id >= ?1 AND id < ?1 || 'g' LIMIT 2", strings.ToLower(prefix))
	if err == nil && len(found) != 1 {
		err = ErrNotFound
	}
	if err != nil {
		return Job{}, err
	}
	return found[0], nil
}
