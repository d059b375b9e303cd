package apply

import (
	"context"
	"errors"
	"time"

	"nightferry/internal/durable"
	"nightferry/internal/halt"
	"nightferry/internal/manifest"
	"nightferry/internal/policy"
	"nightferry/internal/trust"
)

// Options of [Run].
type Options struct {
	// Root, if set, opens the target instead of its path. Each call opens it again and closes it.
	Root func(durable.Options) (*durable.Root, error)

	Channel string
	Release trust.ReleaseNumber // 0: the channel's head; else this release, at most the head's number
	// Digest is the release object's digest, if the caller has it from a trusted source. If it is zero, the head's
	// digest or the release's own signature decides.
	Digest trust.ReleaseDigest

	// Held, if set, means that a release of the channel was applied to the target before. If the target holds nothing of
	// it, the run ends with an *EmptiedError, because the folder may be the mount point of an absent volume. Adopt
	// orders the run to fill the folder in spite of that.
	Held  *Held
	Adopt bool

	policy.Policy               // only Partial, Prune, Ignore and IgnoreInode are used here
	LockWait      time.Duration // maximum time to wait for locked files, unless Partial; 0: do not wait

	Connections int      // concurrent requests; 0: 8
	Seeds       []string // folders that may hold parts of the release already; only read
	DryRun      bool     // plan and report; change neither the target nor staged files
	// Limit, if set, is called after n bytes were read of a file whose only change is its change time or inode
	// number. It may wait; its error ends the run.
	Limit func(ctx context.Context, n int) error

	Rehash bool // read every byte of the target instead of trusting size and times

	Subject halt.Subject // this site, for matching halt orders; Run fills in Channel
	// Gate, if set, is called before each request and each block, and once more before the commit. Its error stops
	// the run, which can be resumed. In a commit whose ctx has ended it is called before each step, and only a
	// *halt.Error counts.
	Gate func(context.Context) error

	// Intend, if set, is called just before the commit's journal is written. It gets the outcome that each change
	// will have if the commit succeeds. It is called again if the commit is rolled back and another is tried. Its
	// error ends the run with nothing committed.
	//
	// Settle, if set, is called after the commit, before its journal is removed. It gets the paths whose outcome
	// differs from the one passed to Intend. Run and Recover also call it when they finish a commit of another
	// process. If a process dies at the wrong moment, Settle is called once more.
	Intend func(each func(yield func(Event) error) error) error
	Settle func(other []Event) error

	RootKey *trust.Public // the root key to require; nil: pin the root key seen at first use
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
