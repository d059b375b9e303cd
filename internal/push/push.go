package push

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"nightferry/internal/clock"
	"nightferry/internal/digest"
	"nightferry/internal/manifest"
	"nightferry/internal/pack"
	"nightferry/internal/repo"
	"nightferry/internal/scan"
	"nightferry/internal/trust"
)

// segmentsDir is the folder of the index's local copies in Options.State.
const segmentsDir = "segments"

// push is one run.
type push struct {
	r         *repo.Repo
	o         Options
	source    string
	root      *os.Root // the source; nothing outside of it is read
	cacheName string

	head  *repo.Head    // nil: the channel has no release
	rel   *repo.Release // the head's release; nil until it is read
	pages repo.Pages    // pages of that release, if the survey needed them
	last  mounted       // mount points when it was made
	index *repo.Index
	began clock.Store // when the index was first read
	lost  uint64      // number of packs that fsck had forgotten by then
	segs  *repo.Segments
	store *store

	crew     *errgroup.Group // readers and workers
	workers  chan *worker
	raws     sync.Pool // []byte, a group's chunks
	payloads sync.Pool // []byte, a group's compressed chunks

	packs, segments int64
	mounts          []string // mount points in the source that the readers' walk found

	mu       sync.Mutex // state, told
	state    Progress
	told     time.Time
	reporter sync.Mutex // OnEvent
}

// Run publishes source as the next release of a channel, unless the source equals the head's release. No site sees
// anything before the very last step, which moves the head. If a run ends early, the next run reuses the objects that
// it stored.
//
// Errors: *GuardError, *halt.Error, repo.ErrConflict, repo.ErrTooLong, trust.ErrUntrusted, and errors of the store and
// the source.
func Run(ctx context.Context, r *repo.Repo, source string, o Options) (res *Result, err error) {
	p := &push{r: r, o: o}
	if p.source, err = filepath.Abs(source); err != nil {
		return nil, err
	}
	p.cacheName = o.Channel + "-" + hex.EncodeToString(digestPrefix(p.source)) + ".catalogue"
	if p.root, err = os.OpenRoot(p.source); err != nil {
		return nil, fmt.Errorf("open the source folder (is it mounted, may this account read it?): %w", err)
	}
	defer p.root.Close()
	if err := r.Halts().Check(ctx, o.Subject); err != nil {
		return nil, err
	}
	if p.head, err = r.PushHead(ctx, o.Channel); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if p.index, err = r.Index(ctx); err != nil {
		return nil, err
	}
	// Use the first date: the index may be read again after a merge of segments.
	p.began, p.lost = p.index.Date(), p.index.Root().Lost
	s, err := p.surveySource(ctx)
	if err != nil {
		return nil, err
	}
	if p.head != nil && s.changed == 0 && !p.head.Behind {
		return p.endUnchanged(ctx, s)
	}
	return p.publishRelease(ctx, s)
}

func digestPrefix(s string) []byte { d := digest.Of([]byte(s)); return d[:8] }

// endUnchanged ends a run in which no file has changed.
func (p *push) endUnchanged(ctx context.Context, s *survey) (*Result, error) {
	c, _, err := p.openCache()
	if err != nil {
		return nil, err
	}
	if c == nil {
		return nil, errors.New("the stat cache vanished while it was used: push again")
	}
	h := c.Header()
	if err := p.permitMissing(c, s.mounts); err != nil {
		return nil, fmt.Errorf("keep the permission to publish without a volume: %w", err)
	}
	if err := p.resignHead(ctx); err != nil {
		return nil, err
	}
	return &Result{Number: p.head.Number, Digest: p.head.Release, Unchanged: true, DryRun: p.o.DryRun, Totals: h.Totals, Tree: h.Tree, Skipped: s.skippedSpecial}, nil
}

// resignAfter is the age at which a head is signed again. This happens daily, even if the source is unchanged, so that
// a site can detect that newer releases are withheld from it. It is an hour less than a day, because daily pushes vary
// in time.
const resignAfter = 23 * time.Hour

// resignHead signs the head again if that is due.
func (p *push) resignHead(ctx context.Context) error {
	left := p.head.Expires.Sub(p.r.StoreTime().Time())
	// A head that expires later than possible was signed by a wrong clock.
	if p.o.DryRun || left > repo.HeadLife-resignAfter && left <= repo.HeadLife+clock.Tolerance {
		return nil
	}
	if _, err := p.r.Publisher(p.o.Key).Renew(ctx, p.o.Channel, p.head.Number, p.head.Release); err != nil {
		return fmt.Errorf("nothing has changed, but the head could not be signed again: %w", err)
	}
	return nil
}

func (p *push) walkSource(ctx context.Context, fn func(scan.Item) error) error {
	skip := func(path string, dir bool) bool {
		return path == manifest.StateDir || p.o.Patterns != nil && p.o.Patterns.Skip(path, dir)
	}
	if err := scan.Walk(ctx, p.source, scan.WalkOptions{Skip: skip}, fn); err != nil {
		return fmt.Errorf("walk the source: %w", err)
	}
	return nil
}

// publishRelease reads changed files, stores new content, and moves the head.
func (p *push) publishRelease(ctx context.Context, s *survey) (*Result, error) {
	var err error
	if err := p.o.State.MkdirAll(segmentsDir, 0o700); err != nil {
		return nil, err
	}
	dir, err := p.o.State.Sub(segmentsDir)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	p.segs = p.r.Segments(dir)
	if p.store, err = p.newStore(ctx); err != nil {
		return nil, err
	}
	defer func() { _ = p.store.close() }()
	p.updateProgress(func(c *Progress) { c.Files, c.TotalFiles, c.ToRead = 0, s.files, s.toRead })
	res, rel, cat, err := p.storeAll(ctx, s)
	if err != nil {
		return nil, err
	}
	defer func() { _ = cat.Abort() }() // no effect after Commit
	if !p.o.Reviewed.IsZero() && rel.Tree != p.o.Reviewed {
		return nil, &GuardError{Guard: "reviewed", Why: fmt.Sprintf("the source has changed since the dry run that was reviewed (its tree was %s, and is %s now; review another dry run)", p.o.Reviewed.String()[:12], rel.Tree.String()[:12])}
	}
	same := p.head != nil && !p.head.Behind && p.rel != nil && p.rel.Tree == rel.Tree && p.rel.Totals == rel.Totals && p.rel.Portable == rel.Portable &&
		slices.Equal(p.rel.Pages, rel.Pages)
	head := trust.ReleaseDigest{}
	switch {
	case same:
		if err := p.resignHead(ctx); err != nil {
			return nil, err
		}
		res.Unchanged, res.Number, res.Digest, head = true, p.head.Number, p.head.Release, p.head.Release
	case p.o.DryRun:
		res.Number = 1
		if p.head != nil {
			res.Number = p.head.Number + 1
		}
	default:
		p.reportProgress("publish", true)
		out, err := p.r.Publisher(p.o.Key).Publish(ctx, repo.Commit{Release: *rel, Parent: p.head, Started: p.began, Lost: p.lost, Subject: p.o.Subject})
		if err != nil {
			return nil, err
		}
		res.Number, res.Digest, head = out.Number, out.Digest, out.Digest
	}
	res.Puts = p.packs + p.segments*2
	if p.o.DryRun {
		res.Puts = p.packs + 2*min(p.packs, 1)
	}
	if !res.Unchanged {
		res.Puts += 2 // release and head
	}
	if p.o.DryRun {
		return res, nil
	}
	h := scan.Header{Repo: [16]byte(p.r.ID()), Channel: p.o.Channel, Number: res.Number, Release: head, Lost: p.lost, Totals: res.Totals, Tree: res.Tree}
	err = p.saveMounts(&h)
	if err := errors.Join(err, cat.Commit(h)); err != nil {
		return nil, fmt.Errorf("release %d is published, but its stat cache could not be kept: %w", res.Number, err)
	}
	x, err := p.r.Index(ctx)
	if err != nil {
		return nil, err
	}
	return res, p.segs.Prune(x.Root())
}

// storeAll runs the pipeline: the walk creates tasks, readers process them concurrently, and the sequencer handles
// their results in path order.
func (p *push) storeAll(ctx context.Context, s *survey) (*Result, *manifest.Release, *scan.CatalogueWriter, error) {
	if p.head != nil {
		if _, err := p.headRelease(ctx); err != nil {
			return nil, nil, nil, err
		}
	}
	prev, err := p.openPrevious(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	defer prev.close()
	sum, err := newTally(prev)
	if err != nil {
		return nil, nil, nil, err
	}
	cat, err := scan.CreateCatalogue(p.o.State, p.cacheName)
	if err != nil {
		return nil, nil, nil, err
	}
	cpus := runtime.GOMAXPROCS(0)
	p.workers = make(chan *worker, cpus)
	for range cpus {
		enc, err := pack.NewEncoder()
		if err != nil {
			return nil, nil, nil, errors.Join(err, cat.Abort())
		}
		p.workers <- &worker{enc: enc}
	}
	seq := p.newSequencer(sum, cat)
	// Two groups, so that an error in either ends the whole pipeline: the crew reads and compresses under ctx, the
	// sequencer drains the queue.
	var line context.Context
	p.crew, line = errgroup.WithContext(ctx)
	queue := make(chan *task, 2*cpus+2)
	p.crew.Go(func() error {
		defer close(queue)
		return p.queueTasks(line, queue)
	})
	seqErr := seq.runQueue(line, queue)
	if seqErr != nil {
		p.crew.Go(func() error { return seqErr }) // ends the readers
	}
	err = p.crew.Wait()
	if seqErr != nil && !errors.Is(seqErr, context.Canceled) {
		err = seqErr
	}
	if err == nil {
		err = seq.endPages()
	}
	if finishErr := p.store.finishStore(ctx); err == nil || errors.Is(err, context.Canceled) && ctx.Err() == nil {
		err = errors.Join(finishErr, err)
	}
	if err != nil {
		_ = cat.Abort() // at worst a temporary file is left
		return nil, nil, nil, p.explainRead(err)
	}
	res, rel := seq.buildRelease(s.skippedSpecial)
	return res, rel, cat, nil
}

// explainRead turns the read error of a source file into a GuardError: a release
// must not lack the file.
func (p *push) explainRead(err error) error {
	var file *fs.PathError
	if !errors.As(err, &file) || !errors.Is(err, errSource) {
		return err
	}
	guard, why := "unreadable", "a file in the source cannot be read (give this account read access, or exclude it; if a program writes it, push again when that is done)"
	if errors.Is(err, errUnstable) {
		guard, why = "unstable", fmt.Sprintf("a file in the source changed each of %d times it was read (push again when its writer is done, or exclude it)", maxTries)
	}
	return &GuardError{Guard: guard, Why: why, Paths: []string{fmt.Sprintf("%q: %v", file.Path, file.Err)}}
}

// updateProgress updates the progress.
func (p *push) updateProgress(f func(*Progress)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.state)
}

const progressEvery = 200 * time.Millisecond

// reportProgress reports the progress of the run, at most once per progressEvery.
func (p *push) reportProgress(phase string, now bool) {
	if p.o.OnEvent == nil {
		return
	}
	p.mu.Lock()
	t := p.o.Now()
	if !now && p.state.Phase == phase && t.Sub(p.told) < progressEvery {
		p.mu.Unlock()
		return
	}
	p.told, p.state.Phase = t, phase
	state := p.state
	p.mu.Unlock()
	p.emitEvent(Event{Progress: &state})
}

func (p *push) emitEvent(e Event) {
	if p.o.OnEvent == nil {
		return
	}
	p.reporter.Lock()
	defer p.reporter.Unlock()
	p.o.OnEvent(e)
}
