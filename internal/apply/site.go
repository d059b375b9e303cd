package apply

import (
	"errors"
	"fmt"
	"io/fs"

	"nightferry/internal/commit"
	"nightferry/internal/digest"
	"nightferry/internal/durable"
	"nightferry/internal/manifest"
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
)

// site is one run at a target. Each part of its state has its own type.
type site struct {
	o        Options
	target   *targetDir
	remote   *remote
	report   *reporter
	commit   *commit.Commit
	out      string                     // the commit's own folder in outDir
	reported map[string]struct{}        // paths whose failure is reported elsewhere
	lists    map[digest.Digest]struct{} // chunk-list pages of the applied release

	unrecorded bool // the target held a release and has no record of it: its files decide, see checkUnmarked
	fresh      bool // this process has created the state folder
	vacant     bool // the target is not the one that held the release: nothing stays there
}

// openSite locks the target for this process. The caller must call the returned function in every case.
func openSite(target string, o Options) (*site, func() error, error) {
	unrecorded, err := checkKept(target, o)
	if err != nil {
		return nil, nil, fmt.Errorf("pull into %q: %w", target, err)
	}
	root, err := o.openRoot(target)
	if durable.IsReadOnly(err) {
		return nil, nil, explainReadOnly(target, err)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("pull into %q: %w", target, err)
	}
	s := &site{o: o, unrecorded: unrecorded, report: &reporter{onEvent: o.OnEvent, settles: o.Settle != nil, began: o.Now().Unix()}}
	s.target = &targetDir{o: &s.o, root: root, report: s.report}
	s.remote = &remote{o: &s.o, root: root, pages: pageCache{root}, report: s.report}
	unlock, err := s.prepareFolders()
	if err != nil {
		if durable.IsReadOnly(err) {
			return nil, nil, errors.Join(explainReadOnly(target, err), root.Close())
		}
		return nil, nil, errors.Join(fmt.Errorf("pull into %q: %w", target, err), root.Close())
	}
	return s, func() error {
		err := unlock()
		if s.fresh && s.vacant {
			err = errors.Join(err, root.RemoveAll(stateDir))
		}
		return errors.Join(err, root.Close())
	}, nil
}

func (o *Options) openRoot(target string) (*durable.Root, error) {
	how := durable.Options{Observer: o.Observer, Create: true, Ours: stateDir}
	if o.Root != nil {
		return o.Root(how)
	}
	return durable.Open(target, how)
}

func (s *site) prepareFolders() (func() error, error) {
	if err := s.target.root.Mkdir(stateDir, 0o755); err == nil {
		s.fresh = true
	} else if !errors.Is(err, fs.ErrExist) {
		return nil, err
	} else if err := checkFolder(s.target.root); err != nil {
		return nil, err
	}
	if s.fresh {
		if err := hideFolder(s.target.root, stateDir); err != nil {
			return nil, err
		}
	}
	unlock, err := durable.Lock(s.target.root, lockName)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(s.target.makeRoom(), s.target.loadChecks(), s.target.sweepState(), s.target.probeTraits(), s.target.readIgnore()); err != nil {
		return nil, errors.Join(err, unlock())
	}
	for _, dir := range []string{pagesDir, stageDir} {
		if err := s.target.root.MkdirAll(dir, 0o755); err != nil {
			return nil, errors.Join(err, unlock())
		}
	}
	s.commit = commit.New(s.target.root, commit.Options{Dir: stateDir, Stage: stageDir, Out: outDir, Next: nextName, Aside: asideDir, Keeps: s.target.keeps, Stopped: s.remote.haltedCommit, OnDecline: s.report.emitRetry, OnAside: s.report.emitRetry})
	return unlock, nil
}
