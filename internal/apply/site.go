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
	asideDir      = stateDir + "/aside" // files moved out of the way by a commit that was lost, or whose path the site has taken meanwhile
	traitsName    = stateDir + "/traits.json"
	pagesDir      = stateDir + "/pages"
	stageDir      = stateDir + "/stage"
	outDir        = stageDir + "/out" // one folder for each commit, with the files that it has moved out of the way
	damagedSuffix = ".damaged"
)

// haltEvery is how often a long fetch checks the bucket for halt orders.
const haltEvery = 30 * time.Second

// site is the target during one run.
type site struct {
	o      Options
	root   *durable.Root
	pages  pageCache
	keeps  durable.Traits // the metadata that the target's file system keeps
	ignore *scan.Patterns // of Options.Ignore
	repo   *repo.Repo
	index  *repo.Index
	commit *commit.Commit
	out    string                     // the commit's own folder in outDir
	told   map[string]struct{}        // paths whose failure is reported elsewhere
	lists  map[digest.Digest]struct{} // chunk-list pages of the applied release

	mu    sync.Mutex // events, res, halted
	res   Result
	asked time.Time // time of the last check for halt orders in the bucket
	wire  atomic.Int64
	other []Event // for Options.Settle
	began int64   // Unix seconds

	checks *Checks // findings of checks
}

// open locks the target for this process. The caller must call the returned function in every case.
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
	s.commit = commit.New(s.root, commit.Options{Dir: stateDir, Stage: stageDir, Out: outDir, Next: nextName, Aside: asideDir, Keeps: s.keeps, Stopped: s.stopped, OnDecline: s.retry, OnAside: s.retry})
	return unlock, nil
}

// removeFile removes a file that may be gone already.
func (s *site) removeFile(name string) error {
	if err := s.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// ErrUnfinished means that a halt order stopped a commit midway. Each file is whole, the old or the new one. The
// next run finishes the commit first.
var ErrUnfinished = errors.New("stopped in the middle of a commit, which the next run finishes")

// stopped ends a commit for a halt order, and for no other reason; nothing is written after it. If ctx has ended
// for another reason, such as the window's end, it does not show a later halt order, but Gate does.
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

// sweepState removes files that a killed run had not yet renamed to their final names, and leftovers of a finished
// commit.
func (s *site) sweepState() error {
	list, err := s.root.ReadDir(stateDir)
	if err != nil {
		return err
	}
	var over []string
	for _, e := range list {
		switch name := stateDir + "/" + e.Name(); name {
		case journalName:
			return s.sweepTemps(list) // the commit is not finished
		case movedName, nextName, nextName + ".new", catalogueName + ".new":
			over = append(over, name)
		}
	}
	if len(over) > 0 {
		// A removed journal must not reappear without these files.
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

// learn probes which metadata the target's file system keeps. It records the result for checks, which must not
// write there.
func (s *site) learn() (err error) {
	if s.keeps, err = durable.ProbeTraits(s.root, stateDir); err != nil {
		return err
	}
	if old, err := durable.ReadTraits(s.root, traitsName); err == nil && old == s.keeps {
		return nil
	}
	return durable.WriteTraits(s.root, traitsName, s.keeps)
}

// readIgnore compiles the patterns of the files that the site may keep. A pattern that this version cannot parse,
// sent by a newer Core, ends the run: without it, a prune would delete files that the pattern protects.
func (s *site) readIgnore() (err error) {
	if s.ignore, err = scan.ParsePatterns(nil, s.o.Ignore); err != nil {
		return fmt.Errorf("ignore: %w", err)
	}
	if s.keeps.Fold {
		s.ignore = s.ignore.FoldCase()
	}
	return nil
}

// remembered loads the repository state last seen, or nil at first use. A damaged memory is an error: without it,
// older data would be accepted.
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

// remember saves the repository state durably, before any of the data is cached.
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

// emit counts an event and passes it to the caller, one at a time.
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

// differ emits an outcome that differs from the intended one and keeps it for Settle.
func (s *site) differ(e Event) {
	e.Committed = true
	s.emit(e)
	if s.o.Settle != nil {
		s.other = append(s.other, e)
	}
}

// forgetProofs resets the counts.
func (s *site) forgetProofs() {
	s.res.ReadFiles, s.res.ReadBytes, s.res.StatedFiles, s.res.OldestRead = 0, 0, 0, 0
}

// proven counts a file that matches the release.
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

// at returns the index. It reads it once, when it is first needed.
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

// gate is called before each request and each block.
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

// connect opens the repository, obeys its halt orders, calls permitted unless it is nil, and reads the head. It
// saves the repository state before it returns.
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
	// Save the state even if the run stops here: a halt order advances the epoch.
	return head, errors.Join(err, s.remember(memory))
}
