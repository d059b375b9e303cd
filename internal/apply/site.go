package apply

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"nightferry/internal/bucket"
	"nightferry/internal/commit"
	"nightferry/internal/digest"
	"nightferry/internal/durable"
	"nightferry/internal/halt"
	"nightferry/internal/manifest"
	"nightferry/internal/repo"
	"nightferry/internal/scan"
)

// Names in the target. All but the first are below it.
const (
	stateDir      = manifest.StateDir
	memoryName    = stateDir + "/memory.json"
	catalogueName = stateDir + "/catalogue"
	beforeName    = stateDir + "/catalogue.before"
	nextName      = stateDir + "/catalogue.next"
	journalName   = stateDir + "/" + commit.Journal
	movedName     = stateDir + "/" + commit.Moved
	lockName      = stateDir + "/lock"
	asideDir      = stateDir + "/aside" // files that a lost journal had moved out of the way
	traitsName    = stateDir + "/traits.json"
	pagesDir      = stateDir + "/pages"
	stageDir      = stateDir + "/stage"
	outDir        = stageDir + "/out" // of each commit a folder, where files wait that are moved out of the way
	damagedSuffix = ".damaged"
)

// haltEvery is how often a long fetch asks the bucket for orders to stop.
const haltEvery = 30 * time.Second

// site is the target during one run.
type site struct {
	o      Options
	root   *durable.Root
	pages  pageCache
	keeps  durable.Traits // what the target's file system keeps of a file
	ignore *scan.Patterns // of Options.Ignore
	repo   *repo.Repo
	index  *repo.Index
	commit *commit.Commit
	out    string                     // the commit's own folder in outDir
	told   map[string]struct{}        // paths whose failure has its event elsewhere
	lists  map[digest.Digest]struct{} // chunk-list pages of what is applied

	mu    sync.Mutex // events, res, halted
	res   Result
	asked time.Time // when the bucket was last asked for orders to stop
	wire  atomic.Int64
	other []Event // for Options.Settle
	began int64   // Unix seconds

	checks *Checks // what checks have found
}

// open takes the target for this process. The caller must call the returned
// function, whatever happens after.
func open(target string, o Options) (*site, func() error, error) {
	if err := kept(target, o); err != nil {
		return nil, nil, fmt.Errorf("pull into %q: %w", target, err)
	}
	root, err := o.openRoot(target)
	if err != nil {
		return nil, nil, fmt.Errorf("pull into %q: %w", target, err)
	}
	s := &site{o: o, root: root, pages: pageCache{root}, began: o.Now().Unix()}
	unlock, err := s.prepare()
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("pull into %q: %w", target, err), root.Close())
	}
	return s, func() error { return errors.Join(unlock(), root.Close()) }, nil
}

func (o *Options) openRoot(target string) (*durable.Root, error) {
	how := durable.Options{Observer: o.Observer, Create: true, Ours: stateDir}
	if o.Root != nil {
		return o.Root(how)
	}
	return durable.Open(target, how)
}

func (s *site) prepare() (func() error, error) {
	fresh := false
	if err := s.root.Mkdir(stateDir, 0o755); err == nil {
		fresh = true
	} else if !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if fresh {
		if err := hide(s.root, stateDir); err != nil {
			return nil, err
		}
	}
	unlock, err := durable.Lock(s.root, lockName)
	if err != nil {
		return nil, err
	}
	s.checks, err = readChecks(s.root)
	if err := errors.Join(err, s.sweepState(), s.learn(), s.readIgnore()); err != nil {
		return nil, errors.Join(err, unlock())
	}
	for _, dir := range []string{pagesDir, stageDir} {
		if err := s.root.MkdirAll(dir, 0o755); err != nil {
			return nil, errors.Join(err, unlock())
		}
	}
	s.commit = commit.New(s.root, commit.Options{Dir: stateDir, Stage: stageDir, Out: outDir, Next: nextName, Keeps: s.keeps, Stopped: s.stopped, OnDecline: s.retry})
	return unlock, nil
}

// removeFile removes a file that may be gone already.
func (s *site) removeFile(name string) error {
	if err := s.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// ErrUnfinished reports that a halt order came in the middle of a commit. Each file
// is whole, the old or the new; the next run finishes it first.
var ErrUnfinished = errors.New("stopped in the middle of a commit, which the next run finishes")

// stopped ends a commit, which nothing else does, for a halt order: after it nothing
// is written. If ctx has ended for another reason, such as the window's end, a halt
// order that comes later is hidden, but known to Gate.
func (s *site) stopped(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return s.halted(ctx)
}

// halted returns ErrUnfinished if ctx or Gate reports a halt order.
func (s *site) halted(ctx context.Context) error {
	var order *halt.Error
	if errors.As(context.Cause(ctx), &order) || s.o.Gate != nil && errors.As(s.o.Gate(context.WithoutCancel(ctx)), &order) {
		return fmt.Errorf("%w: %w", ErrUnfinished, order)
	}
	return nil
}

// sweepState removes what a run that died was about to give its name, and what
// it had not yet removed of a commit that was over.
func (s *site) sweepState() error {
	list, err := s.root.ReadDir(stateDir)
	if err != nil {
		return err
	}
	var over []string
	for _, e := range list {
		switch name := stateDir + "/" + e.Name(); name {
		case journalName:
			return s.sweepTemps(list) // it is not over
		case movedName, nextName, nextName + ".new", catalogueName + ".new":
			over = append(over, name)
		}
	}
	if len(over) > 0 {
		// A journal that is gone must not come back without these.
		if err := s.root.SyncDir(stateDir); err != nil {
			return err
		}
	}
	for _, name := range over {
		if err := s.removeFile(name); err != nil {
			return err
		}
	}
	return s.sweepTemps(list)
}

func (s *site) sweepTemps(list []fs.DirEntry) error {
	for _, e := range list {
		if durable.IsTemp(e.Name()) {
			if err := s.removeFile(stateDir + "/" + e.Name()); err != nil {
				return err
			}
		}
	}
	return nil
}

// learn finds out what the target's file system keeps, and records it for checks
// that may not write there.
func (s *site) learn() (err error) {
	if s.keeps, err = durable.ProbeTraits(s.root, stateDir); err != nil {
		return err
	}
	if old, err := durable.ReadTraits(s.root, traitsName); err == nil && old == s.keeps {
		return nil
	}
	return durable.WriteTraits(s.root, traitsName, s.keeps)
}

// readIgnore compiles the patterns of what the site may keep. A pattern that
// this program cannot read, a newer Core's, ends the run: without it, a prune
// would delete what the pattern protects.
func (s *site) readIgnore() (err error) {
	if s.ignore, err = scan.ParsePatterns(nil, s.o.Ignore); err != nil {
		return fmt.Errorf("ignore: %w", err)
	}
	if s.keeps.Fold {
		s.ignore = s.ignore.FoldCase()
	}
	return nil
}

// remembered loads what was seen of the repository, nil at first use. A damaged
// memory is an error: going on without it would accept what is older.
func (s *site) remembered() (*repo.Memory, error) {
	f, err := s.root.Open(memoryName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, 4<<20))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read %q: %w", memoryName, err)
	}
	m := new(repo.Memory)
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("read %q: %w: it is damaged; check the store, then remove the file and pull with --trust KEY", memoryName, err)
	}
	return m, nil
}

// remember keeps, durably, what was seen, before anything of it is cached.
func (s *site) remember(old *repo.Memory) error {
	now, err := json.Marshal(s.repo.Memory())
	if err != nil {
		return fmt.Errorf("encode memory: %w", err)
	}
	if old != nil {
		if was, err := json.Marshal(old); err == nil && string(was) == string(now) {
			return nil
		}
	}
	return s.root.WriteFile(memoryName, now, 0o644)
}

// emit hands an event to the caller, one at a time, and counts it.
func (s *site) emit(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.Kind == FileEvent {
		s.res.count(e.Outcome)
	}
	if s.o.OnEvent != nil {
		s.o.OnEvent(e)
	}
}

// differ tells of a change that did not become what was intended.
func (s *site) differ(e Event) {
	e.Committed = true
	s.emit(e)
	if s.o.Settle != nil {
		s.other = append(s.other, e)
	}
}

// forgetProofs begins to count anew.
func (s *site) forgetProofs() {
	s.res.ReadFiles, s.res.ReadBytes, s.res.StatedFiles, s.res.OldestRead = 0, 0, 0, 0
}

// proven counts a file that is what the release says.
func (s *site) proven(size, checked int64) {
	if checked >= s.began {
		s.res.ReadFiles++
		s.res.ReadBytes += size
	} else {
		s.res.StatedFiles++
	}
	if s.res.ReadFiles+s.res.StatedFiles == 1 || checked < s.res.OldestRead {
		s.res.OldestRead = checked
	}
}

func (s *site) phase(name string) { s.emit(Event{Kind: PhaseEvent, Phase: name}) }

func (s *site) retry(err error) {
	if a := (*repo.ArrivalError)(nil); errors.As(err, &a) {
		s.mu.Lock()
		s.res.Damaged++
		s.mu.Unlock()
	}
	s.emit(Event{Kind: RetryEvent, Cause: err})
}

// at returns the index, read once and only when something is lacking.
func (s *site) at(ctx context.Context) (*repo.Index, error) {
	if s.index == nil {
		x, err := s.repo.Index(ctx)
		if err != nil {
			return nil, err
		}
		s.index = x
	}
	return s.index, nil
}

// gate is asked before each request and each block.
func (s *site) gate(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if s.o.Gate != nil {
		if err := s.o.Gate(ctx); err != nil {
			return err
		}
	}
	s.mu.Lock()
	now := s.o.Now()
	due := now.Sub(s.asked) >= haltEvery
	if due {
		s.asked = now
	}
	s.mu.Unlock()
	if !due {
		return nil
	}
	return s.repo.CheckHalt(ctx, s.o.Subject)
}

func (s *site) fetchOptions() repo.FetchOptions {
	return repo.FetchOptions{Connections: s.o.Connections, Gate: s.gate, OnRetry: s.retry,
		OnBytes: func(n int64) { s.wire.Add(n) }}
}

// connect opens the repository, obeys the kill switch, calls permitted if that is
// not nil, and reads the head. It persists what it saw before it returns.
func (s *site) connect(ctx context.Context, store bucket.Store, permitted func(context.Context) error) (*repo.Head, error) {
	memory, err := s.remembered()
	if err != nil {
		return nil, err
	}
	s.repo, err = repo.Open(ctx, store, repo.Options{Memory: memory, Root: s.o.RootKey, Key: s.o.Key, Now: s.o.Now, OnRetry: s.retry})
	if err != nil {
		return nil, err
	}
	if memory == nil && s.o.RootKey == nil {
		s.emit(Event{Kind: PinEvent, Root: s.repo.Root()})
	}
	s.asked = s.o.Now()
	err = s.repo.CheckHalt(ctx, s.o.Subject)
	if err == nil && permitted != nil {
		err = permitted(ctx)
	}
	var head *repo.Head
	if err == nil {
		head, err = s.repo.Head(ctx, s.o.Channel)
	}
	// What was seen counts even if the run stops here: a halt is an epoch.
	return head, errors.Join(err, s.remember(memory))
}
