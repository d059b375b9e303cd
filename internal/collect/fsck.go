package collect

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"nightferry/internal/bucket"
	"nightferry/internal/clock"
	"nightferry/internal/digest"
	"nightferry/internal/frame"
	"nightferry/internal/index"
	"nightferry/internal/pack"
	"nightferry/internal/repo"
)

// maxPaths bounds how many files of one release are named one by one.
const maxPaths = 1000

// FsckOptions tune a check.
type FsckOptions struct {
	ReadData      bool // read every pack, every block and every chunk
	ForgetMissing bool // take lost and damaged packs out of the index
	RebuildIndex  bool // first rebuild the index from the packs alone
	Connections   int  // packs that are read at once, 33 MiB each; 0: 3, at most 4
	OnEvent       func(Event)
}

// FsckReport summarises a check.
type FsckReport struct {
	Damage       int64  `json:"damage"`  // findings
	Garbage      int64  `json:"garbage"` // findings
	GarbageBytes int64  `json:"garbage_bytes"`
	TrustNumber  uint64 `json:"trust"`
	Channels     int    `json:"channels"`
	Releases     int    `json:"releases"`
	Files        int64  `json:"files"` // entries checked, in all releases
	Segments     int    `json:"segments"`
	Packs        int64  `json:"packs"` // named by the index
	PackBytes    int64  `json:"pack_bytes"`
	Chunks       int64  `json:"chunks"`      // needed by releases
	LostChunks   int64  `json:"lost_chunks"` // needed, but unreadable
	ReadPacks    int64  `json:"packs_read"`
	ReadBytes    int64  `json:"bytes_read"`
	Indexed      int64  `json:"packs_indexed"`   // by RebuildIndex
	Forgotten    int64  `json:"packs_forgotten"` // by ForgetMissing
	Salvaged     int64  `json:"chunks_salvaged"` // copied out of damaged packs before they were forgotten
}

// fsck is one check.
type fsck struct {
	r    *repo.Repo
	segs *repo.Segments
	o    FsckOptions
	fn   func(Finding)
	rep  FsckReport

	packs    map[digest.Digest]object // in the store
	segments map[digest.Digest]object
	chains   []*chain
	x        *repo.Index
	known    *repo.Known
	bad      map[digest.Digest]bad // damaged or missing packs that the index names
}

// bad describes why a pack cannot be relied on.
type bad struct {
	cause string
	there bool // the object exists, so some chunks may be saved
}

// Fsck checks a repository and calls fn for each finding of damage or garbage.
// It may run beside pushes, pulls and gc, unless it repairs. It returns an
// error only if it could not check: for a damaged repository it returns a
// report with Damage above 0.
func Fsck(ctx context.Context, r *repo.Repo, segs *repo.Segments, o FsckOptions, fn func(Finding)) (*FsckReport, error) {
	if o.Connections <= 0 {
		o.Connections = 3
	}
	o.Connections = min(o.Connections, 4)
	f := &fsck{r: r, segs: segs, o: o, fn: fn, bad: map[digest.Digest]bad{}}
	err := f.run(ctx)
	if f.known != nil {
		err = errors.Join(err, f.known.Close())
	}
	if err != nil {
		return &f.rep, fmt.Errorf("fsck: %w", err)
	}
	return &f.rep, nil
}

func (f *fsck) run(ctx context.Context) error {
	var err error
	if f.rep.TrustNumber, err = f.r.Trust().Check(ctx); err != nil {
		if err := f.reportDamage(Finding{Kind: KindTrust, Key: fmt.Sprintf("trust/%d", f.rep.TrustNumber+1), Remedy: remedyRestore}, err); err != nil {
			return err
		}
	}
	if _, err := f.r.Halts().Read(ctx); err != nil {
		if err := f.reportDamage(Finding{Kind: KindHalt, Key: "halt", Remedy: "give it anew with nightferry resume --all STORE"}, err); err != nil {
			return err
		}
	}
	if f.o.RebuildIndex {
		if err := f.rebuildIndex(ctx); err != nil {
			return fmt.Errorf("rebuild the index: %w", err)
		}
	}
	// Read heads before the index, and the index before the packs. Everything
	// that a head named was then in the index, and everything that the index
	// named was then in the store.
	strange, err := f.readChains(ctx)
	if err != nil {
		return err
	}
	ok, err := f.readIndex(ctx)
	if err != nil || !ok {
		return err
	}
	if err := f.listAll(ctx, strange); err != nil {
		return err
	}
	if err := f.checkPacks(ctx); err != nil {
		return err
	}
	if err := f.checkReleases(ctx); err != nil {
		return err
	}
	if f.o.ForgetMissing && len(f.bad) > 0 {
		return f.dropBadPacks(ctx)
	}
	return nil
}

func (f *fsck) emitEvent(e Event) {
	if f.o.OnEvent != nil {
		f.o.OnEvent(e)
	}
}

func (f *fsck) addFinding(x Finding) {
	if x.Severity == Garbage {
		f.rep.Garbage++
		f.rep.GarbageBytes += x.Size
	} else {
		x.Severity = Damage
		f.rep.Damage++
	}
	if f.fn != nil {
		f.fn(x)
	}
}

// reportDamage turns err into a finding. If err is about the store or this machine
// rather than about stored data, damage returns it, which ends the check.
func (f *fsck) reportDamage(x Finding, err error) error {
	if !isStoredFault(err) {
		return err
	}
	x.Cause = err.Error()
	f.addFinding(x)
	return nil
}

// isStoredFault reports whether an error is about stored data. A check that could not
// run must never look like one that found damage, nor like one that passed.
// Local disk errors and formats of newer programs are no damage.
func isStoredFault(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	var b *bucket.Error
	if errors.As(err, &b) {
		return b.Kind == bucket.KindNotExist || b.Kind == bucket.KindIntegrity
	}
	var newer *frame.NewerError
	var path *fs.PathError
	var link *os.LinkError
	var call syscall.Errno
	return !errors.As(err, &newer) && !errors.As(err, &path) && !errors.As(err, &link) && !errors.As(err, &call)
}

// readIndex proves the root and every segment. It returns false if the index
// cannot be used, so that nothing that depends on it can be checked.
func (f *fsck) readIndex(ctx context.Context) (ok bool, err error) {
	for try := 0; ; try++ {
		x, err := f.r.Index(ctx)
		if err != nil {
			return false, f.reportDamage(Finding{Kind: KindRoot, Key: repo.RootKey, Remedy: remedyRebuild}, err)
		}
		wrong := map[digest.Digest]error{}
		for i, ref := range x.Root().Segments {
			f.emitEvent(Event{Phase: "check segments", Key: repo.SegmentKey(ref.Digest), Done: int64(i + 1), Total: int64(len(x.Root().Segments))})
			if err := x.CheckSegment(ctx, ref); err != nil {
				if !isStoredFault(err) {
					return false, err
				}
				wrong[ref.Digest] = err
			}
		}
		if len(wrong) > 0 && try < 3 {
			// A push may have merged it and gc deleted it meanwhile.
			if again, err := f.r.Index(ctx); err == nil && again.Root().Sequence != x.Root().Sequence {
				continue
			}
		}
		for d, err := range wrong {
			f.addFinding(Finding{Kind: KindSegment, Key: repo.SegmentKey(d), Cause: err.Error(), Remedy: remedyRebuild})
		}
		if len(wrong) > 0 {
			return false, nil
		}
		f.x, f.rep.Segments = x, len(x.Root().Segments)
		f.known, err = f.segs.Known(ctx, x)
		return err == nil, err
	}
}

// listAll lists every object and sorts it by its kind.
func (f *fsck) listAll(ctx context.Context, strange []bucket.Info) error {
	f.packs, f.segments = map[digest.Digest]object{}, map[digest.Digest]object{}
	f.emitEvent(Event{Phase: "list"})
	err := f.r.Store().List(ctx, "", func(i bucket.Info) error {
		d, err := digest.Parse(i.Key[max(0, len(i.Key)-2*digest.Size):])
		o := object{size: i.Size, modified: clock.StoreAt(i.Modified)}
		switch {
		case err == nil && i.Key == repo.PackKey(d):
			f.packs[d] = o
		case err == nil && i.Key == repo.SegmentKey(d):
			f.segments[d] = o
		case strings.HasPrefix(i.Key, repo.ChannelsPrefix), strings.HasPrefix(i.Key, "trust/"), i.Key == "format", i.Key == "halt", i.Key == "incarnation", i.Key == repo.RootKey:
		default:
			strange = append(strange, i)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, i := range strange {
		f.addFinding(Finding{Severity: Garbage, Kind: KindObject, Key: i.Key, Size: i.Size, Cause: "it is no object of a repository", Remedy: "delete it by hand if it is of no use"})
	}
	for _, ref := range f.x.Root().Segments {
		delete(f.segments, ref.Digest)
	}
	for d, o := range f.segments {
		f.addFinding(Finding{Severity: Garbage, Kind: KindSegment, Key: repo.SegmentKey(d), Size: o.size, Cause: "the index root does not list it", Remedy: remedyGC})
	}
	return nil
}

// checkPacks compares the index's records of packs with the store.
func (f *fsck) checkPacks(ctx context.Context) error {
	var none live
	use, err := sweepIndex(ctx, f.segs, f.x, &none, nil)
	if err != nil {
		return err
	}
	chunks := map[digest.Digest]int64{}
	for i, p := range f.x.Packs() {
		chunks[p.Digest] = use[i].chunks
		f.rep.Packs++
		f.rep.PackBytes += int64(p.Size)
		if o, ok := f.packs[p.Digest]; !ok {
			f.bad[p.Digest] = bad{cause: "it is not there"}
		} else if o.size != int64(p.Size) {
			f.bad[p.Digest] = bad{cause: fmt.Sprintf("it has %d bytes, the index says %d", o.size, p.Size), there: true}
		}
	}
	for d, o := range f.packs {
		if _, named := chunks[d]; !named {
			f.addFinding(Finding{Severity: Garbage, Kind: KindPack, Key: repo.PackKey(d), Size: o.size, Cause: "the index does not name it", Remedy: remedyGC})
		}
	}
	if f.o.ReadData {
		if err := f.readPacks(ctx, chunks); err != nil {
			return err
		}
	}
	if len(f.bad) > 0 {
		if err := f.confirmFindings(ctx); err != nil {
			return err
		}
	}
	for d, b := range f.bad {
		f.addFinding(Finding{Kind: KindPack, Key: repo.PackKey(d), Cause: b.cause, Remedy: remedyForget})
	}
	return nil
}

// confirmFindings drops findings about packs that the index no longer names: gc has
// removed them meanwhile.
func (f *fsck) confirmFindings(ctx context.Context) (err error) {
	x, err := f.r.Index(ctx)
	if err != nil {
		return err
	}
	known, err := f.segs.Known(ctx, x)
	if err != nil {
		return err
	}
	named := known.Packs()
	for d := range f.bad {
		if _, ok := named[d]; !ok {
			delete(f.bad, d)
		}
	}
	return known.Close()
}

// dropBadPacks saves the readable chunks of damaged packs and removes all bad packs
// from the index. The root's Lost counter makes publishers distrust what they
// remember of their last push.
func (f *fsck) dropBadPacks(ctx context.Context) error {
	if err := f.salvageChunks(ctx); err != nil {
		return fmt.Errorf("save the good chunks of damaged packs: %w", err)
	}
	drop := map[digest.Digest]bool{}
	for d := range f.bad {
		drop[d] = true
	}
	x, err := f.segs.Forget(ctx, drop, func(root *index.Root) error {
		root.Lost++
		return nil
	})
	if err != nil {
		return fmt.Errorf("forget lost packs: %w", err)
	}
	f.rep.Forgotten = int64(len(drop))
	return f.segs.Prune(x.Root())
}

// salvageChunks copies the readable chunks of damaged packs that no good pack holds
// to new packs, one block at a time. It copies all of them: if a manifest is
// lost too, the needed ones are unknown.
func (f *fsck) salvageChunks(ctx context.Context) error {
	var places []repo.Place
	err := f.segs.Walk(ctx, f.x, func(all []repo.Place) error {
		for _, p := range all {
			b, isBad := f.bad[f.x.Packs()[p.Pack].Digest]
			if !isBad {
				return nil
			}
			if b.there {
				places = append(places, p)
			}
		}
		return nil
	})
	if err != nil || len(places) == 0 {
		return err
	}
	m, done, err := newMover(f.r, f.segs)
	if err != nil {
		return err
	}
	defer done()
	for _, block := range byBlock(places) {
		err := f.x.Fetch(ctx, block, repo.FetchOptions{Connections: 1}, m.addBlock)
		if err != nil && !isLost(err) {
			return err
		}
	}
	f.rep.Salvaged = m.moved
	return m.finish(ctx)
}

// isLost reports whether a fetch failed because stored data is missing or
// damaged.
func isLost(err error) bool {
	var corrupt *repo.CorruptError
	var missing *repo.MissingError
	return errors.As(err, &corrupt) || errors.As(err, &missing) || bucket.KindOf(err) == bucket.KindIntegrity
}

// blockOf identifies a block of a pack.
type blockOf struct{ pack, at uint32 }

func byBlock(places []repo.Place) map[blockOf][]repo.Place {
	out := map[blockOf][]repo.Place{}
	for _, p := range places {
		k := blockOf{p.Pack, p.At.Block}
		out[k] = append(out[k], p)
	}
	return out
}

// minPack is the least size of a pack.
const minPack = pack.PreludeSize + pack.TrailerSize
