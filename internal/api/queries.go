package api

import (
	"time"

	"nightferry/internal/runs"
)

// Period selects a span of time. Zero fields do not bound it.
type Period struct {
	Since time.Time `query:"since" doc:"from this time, inclusive"`
	Until time.Time `query:"until" doc:"up to this time, exclusive"`
}

// AllQuery selects whether ended entries are listed, too.
type AllQuery struct {
	All bool `query:"all" doc:"also those that have ended"`
}

// SitesQuery selects sites, in the order of the configuration.
type SitesQuery struct {
	Scope
	After string `query:"after" doc:"only sites after this one: the last of the page before"`
	Limit int    `query:"limit" min:"1" max:"100000" doc:"at most so many; absent: all"`
}

// IncidentsQuery selects incidents, the newest first.
type IncidentsQuery struct {
	AllQuery
	After int `query:"after" min:"1" max:"9007199254740991" doc:"only incidents after this id: the last of the page before"`
	Limit int `query:"limit" min:"1" max:"100000" doc:"at most so many; absent: all"`
}

// WhereQuery names a file of a channel.
type WhereQuery struct {
	Channel string `query:"channel" doc:"the channel"`
	Path    string `query:"path" doc:"the file's path in the channel"`
}

// PlanQuery asks for a forecast of the coming nights.
type PlanQuery struct {
	Scope
	At   time.Time `query:"at" doc:"from this time; absent: now"`
	Days int       `query:"days" min:"1" max:"366" doc:"how many days; absent: 1"`
}

// WindowsQuery asks when channels may move.
type WindowsQuery struct {
	Scope
	Since time.Time `query:"since" doc:"from this time; absent: now"`
	Until time.Time `query:"until" doc:"up to this time, at most 31 days after since; absent: a day after it"`
}

// RunsQuery selects runs, the newest first.
type RunsQuery struct {
	Scope
	Period
	Core  bool       `query:"core" doc:"only the Core's own runs"`
	State runs.State `query:"state" doc:"only runs that ended so"`
	Open  bool       `query:"open" doc:"only runs under way"`
	After string     `query:"after" doc:"only runs after this id: the last of the page before"`
	Limit int        `query:"limit" min:"1" max:"100000" doc:"at most so many; absent: 1000"`
}

// RunQuery names a run.
type RunQuery struct {
	ID  string `path:"id" doc:"the run's id, or a unique prefix of it"`
	All bool   `query:"all" doc:"also unchanged files"`
}

// ExceptionsQuery selects files that failed, were locked or were repaired.
type ExceptionsQuery struct {
	Scope
	Limit int `query:"limit" min:"1" max:"100000" doc:"at most so many; absent: 1"`
}

// AuditQuery selects audit entries, the newest first.
type AuditQuery struct {
	Period
	Who    string `query:"who" doc:"only by this actor"`
	What   string `query:"what" doc:"only this action"`
	Object string `query:"object" doc:"only about this object"`
	Reads  bool   `query:"reads" doc:"also reads of the vault, which are frequent"`
	After  int    `query:"after" min:"1" max:"9007199254740991" doc:"only entries after this id: the last of the page before"`
	Limit  int    `query:"limit" min:"1" max:"100000" doc:"at most so many; absent: 1000"`
}

// LogsQuery selects log files.
type LogsQuery struct {
	Scope
	Period
	Run  string `query:"run" doc:"only of this run"`
	Core bool   `query:"core" doc:"only the Core's own runs"`
}

// EventsQuery selects events. Empty fields match all.
type EventsQuery struct {
	Domain  string `query:"domain" doc:"only of this domain"`
	Site    string `query:"site" doc:"only of this site"`
	Channel string `query:"channel" doc:"only of this channel"`
	Kind    string `query:"kind" doc:"only of this kind"`
	After   string `query:"after" doc:"only after the event with this id; the header Last-Event-ID counts before it"`
}

// FollowQuery chooses whether a job follows the runs.
type FollowQuery struct {
	Follow bool `query:"follow" doc:"the job lasts until the runs of connected sites have ended, and has their events; else it only sends the requests"`
}

// JobsQuery selects jobs, the newest first.
type JobsQuery struct {
	After string `query:"after" doc:"only jobs after this id: the last of the page before"`
	Limit int    `query:"limit" min:"1" max:"1000" doc:"at most so many; absent: 100"`
}

// JobQuery names a job.
type JobQuery struct {
	ID string `path:"id" doc:"the job's id, or its first digits if no other job's begins so"`
}
