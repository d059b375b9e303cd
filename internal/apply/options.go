package apply

import (
	"context"
	"errors"
	"time"

	"nightferry/internal/digest"
	"nightferry/internal/durable"
	"nightferry/internal/halt"
	"nightferry/internal/manifest"
	"nightferry/internal/policy"
	"nightferry/internal/trust"
)

// Options of [Run].
type Options struct {
	// Root, if set, opens the target in place of its path, anew in each call;
	// the call closes it.
	Root func(durable.Options) (*durable.Root, error)

	Channel string
	Release uint64 // 0: the channel's head; else this release, which must not be newer than the head
	// Digest is that of the release object, where the caller has it from whom
	// it trusts; zero: the head's, or the release's own signature, counts.
	Digest digest.Digest

	// Held promises that a release of the channel was applied to the target before.
	// If the target has no record of that, the run ends with an *EmptiedError
	// instead of filling what may be the mount point of an absent volume. Adopt is
	// the order to fill it all the same.
	Held, Adopt bool

	policy.Policy               // Partial, Prune and Ignore count here
	LockWait      time.Duration // how long to wait for locked files before giving up, unless Partial; 0: not at all

	Connections int      // requests under way at once; 0: 8
	Seeds       []string // folders, read only, that may hold parts of the release already
	DryRun      bool     // plan and report; change nothing of the target, and nothing that is staged
	// ByTime takes a file of unchanged size and modification time for unchanged,
	// for volumes whose change times or inode numbers do not last.
	ByTime bool
	// Limit, if set, is asked to wait for n bytes that were just read of a file of
	// which only change time or inode number are new; its error ends the run.
	Limit func(ctx context.Context, n int) error

	Rehash bool // read every byte of the target instead of trusting size and times

	Subject halt.Subject // who we are, to the kill switch; Channel is filled in
	// Gate, if set, is asked before each request and each block, and once
	// more before the commit: its error stops the run, which resumes later. In a
	// commit whose ctx has ended it is asked before each step, and only a
	// *halt.Error counts.
	Gate func(context.Context) error

	// Intend, if set, is told what becomes of every change when the commit
	// succeeds, just before its journal is written; again if the commit is
	// taken back and another is tried. Its error ends the run with nothing
	// committed. Settle, if set, is told that the commit has happened, before
	// its journal is removed, and which paths have another outcome than Intend
	// was told. Run and Recover call it too when they finish what another
	// process has begun; whoever dies at the wrong moment makes them call it
	// once more.
	Intend func(each func(yield func(Event) error) error) error
	Settle func(other []Event) error

	RootKey *trust.Public // the root key to demand; nil: pin the one of first use
	Key     []byte        // of an encrypted repository

	Now      func() time.Time // required
	OnEvent  func(Event)      // called by one goroutine at a time
	Observer durable.Observer // for tests
}

func (o *Options) validate() error {
	if o.Now == nil {
		return errors.New("pull: Options.Now is not set")
	}
	if o.Connections <= 0 {
		o.Connections = 8
	}
	o.Subject.Channel = o.Channel
	return manifest.CheckChannel(o.Channel)
}
