package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The size of the fleet. A quick run only shows that the harness works.
const (
	fleetSims     = 1000      // simulated agents, all in this process
	fleetReal     = 70        // real agents, a process each
	simFiles      = 1000      // files of the release that the simulated agents report, each an outcome per agent
	realFiles     = 2000      // files of the release that the real agents pull
	realBytes     = 200 << 20 // of these files together
	changeRounds  = 5         // changes whose propagation to all agents is timed
	fleetPatience = 10 * time.Minute
	idlePeriod    = time.Minute
)

// fleetSize is the size of a run.
type fleetSize struct {
	sims, reals, simFiles, realFiles, realBytes int
	idle                                        int // more real agents, of the region whose channel has no release

	rate     int64  // bytes per second of each real site; 0: no limit
	endpoint string // host:port of the store; empty: the server itself
}

// fleetResult holds the results of the fleet part. Core, agents, S3 server and counting relay share one machine, which
// limits all rates and times.
type fleetResult struct {
	Run  string
	Load float64 // of the machine in the minute before, by other processes: 1 is one busy core

	Sims        int
	EnrolWall   time.Duration // of all simulated agents, by the real enrolment
	ConnectRSS  int64         // of the Core, with all agents connected and idle
	ChangeP50   time.Duration // from the request until an agent has checked the new state's signature
	ChangeP99   time.Duration // of the worst round
	ChangeMax   time.Duration
	Outcomes    int64         // acknowledged
	OutcomeWall time.Duration // from the first report until the last acknowledgement
	OutcomeUp   int64         // bytes that the agents sent for them, including TLS
	OutcomeDown int64         // bytes of the acknowledgements
	RenderWall  time.Duration // from the first report until the last log file
	Lost        int64         // outcomes that are missing from the ledger, or not exactly once in their run's log
	CoreCPU     time.Duration // of the Core, for the outcomes
	CorePeak    int64         // VmHWM of the Core, with all of the above

	Reals        int
	Files, Bytes int64 // of the release
	Converge     time.Duration
	PullCPU      time.Duration // of all agents
	PullUp       int64         // bytes from the agents to the Core during that
	PullDown     int64
	Identical    int // targets that equal the source byte for byte
	AgentPeak    int64
	AgentRSS     int64 // idle, the largest
	AgentCPU     float64
	IdleWire     float64       // bytes per second and agent, both directions together
	Idle         time.Duration // duration of that measurement
	CoreEnd      int64         // VmHWM of the Core at the end, including the publish of the release
}

// fleetPart puts a Core under load: first the simulated agents, then the real ones.
func (b *bench) fleetPart(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, fleetPatience, errors.New("the fleet took longer than it may"))
	defer cancel()
	size := fleetSize{sims: fleetSims, reals: fleetReal, simFiles: simFiles, realFiles: realFiles, realBytes: realBytes}
	if b.quick {
		size = fleetSize{sims: 20, reals: 2, simFiles: 50, realFiles: 50, realBytes: 4 << 20}
	}
	res := &fleetResult{Run: b.results.run, Sims: size.sims, Reals: size.reals, Load: loadAverage()}
	if err := b.clean(); err != nil {
		return err
	}
	const bucket = "fleet"
	if err := os.Mkdir(filepath.Join(b.data, bucket), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the bucket: %w", err)
	}
	defer func() { err = errors.Join(err, b.drop(bucket)) }()
	c, err := b.startFleetCore(ctx, bucket, size)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	if err := b.simulate(ctx, c, size, res); err != nil {
		return fmt.Errorf("simulated agents: %w", err)
	}
	if err := b.realAgents(ctx, c, size, res); err != nil {
		return fmt.Errorf("real agents: %w", err)
	}
	if res.CoreEnd, err = statusBytes(c.pid(), "VmHWM"); err != nil {
		return err
	}
	b.results.Fleet = res
	return nil
}

// loadAverage returns the load of the last minute, or 0 if it is unknown.
func loadAverage() float64 {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(text), " ")
	load, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return 0
	}
	return load
}

// statusBytes reads a size from a process's status: VmRSS, or VmHWM, its peak.
func statusBytes(pid int, field string) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("read the memory of a process: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read the memory of a process: %w", err)
			}
			return kib << 10, nil
		}
	}
	return 0, fmt.Errorf("read the memory of process %d: there is no %s", pid, field)
}

// cpuTime is the user and system time of a process so far, to 10 ms.
func cpuTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read the time of a process: %w", err)
	}
	_, rest, _ := strings.Cut(string(text), ") ") // the name before it may contain blanks
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("read the time of process %d: too few fields", pid)
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	if err := errors.Join(err, err2); err != nil {
		return 0, fmt.Errorf("read the time of a process: %w", err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond, nil
}
