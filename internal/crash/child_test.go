package crash

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"time"

	"nightferry/internal/apply"
	"nightferry/internal/bucket"
	"nightferry/internal/durable"
	"nightferry/internal/push"
	"nightferry/internal/repo"
	"nightferry/internal/testbed"
	"nightferry/internal/trust"
)

const channel = "package"

// order defines the work of a child process.
type order struct {
	Verb        string              // pull, recover, push or init
	Store       string              // folder of the repository
	Target      string              // folder to write: pull and recover
	Source      string              // folder to publish: push
	State       string              // publisher's state folder: push
	Release     trust.ReleaseNumber // release to pull; 0: the head
	Connections int
	Secret      []byte // repository key
	Rehash      bool   // push: ignore the stat cache
	Kill        *point // nil: the child is not killed
}

// point selects when a child kills itself: before the N-th change of a phase or, with Half, halfway through a change
// that has several steps.
type point struct {
	Phase int
	N     int // starts at 0
	Half  bool
}

// report is the result that a child prints on its last line. A child that kills itself reports its progress.
type report struct {
	Err      string `json:",omitempty"`
	Op       string `json:",omitempty"` // change at which the child died
	Counts   []int  // changes made, by phase
	Packs    int64  // pack bytes received from the store
	PackPuts int64  // packs sent to the store

	Number    trust.ReleaseNumber // release number at the end
	Unchanged bool                // push: the head is already this tree
	Written   int64               // bytes that a pull staged
	Read      int64               // bytes that a push read from the source
}

// run executes an order in a child process.
func (o order) run(ctx context.Context) (r report, state *os.ProcessState, err error) {
	self, err := os.Executable()
	if err != nil {
		return r, nil, err
	}
	text, err := json.Marshal(o)
	if err != nil {
		return r, nil, err
	}
	cmd := exec.CommandContext(ctx, self)
	// With the race detector, a child would sleep for a second before it exits.
	cmd.Env = append(os.Environ(), childEnv+"="+string(text), "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if cmd.ProcessState == nil {
		return r, nil, err
	}
	if jerr := json.Unmarshal(out, &r); jerr != nil {
		return r, cmd.ProcessState, fmt.Errorf("%s: the child said %q: %w", o.Verb, out, errors.Join(jerr, err))
	}
	if r.Err != "" {
		return r, cmd.ProcessState, fmt.Errorf("%s: %s", o.Verb, r.Err)
	}
	return r, cmd.ProcessState, nil
}

// child is the child's main function.
func child(text string) int {
	var o order
	r := report{Err: "cannot read the order"}
	if err := json.Unmarshal([]byte(text), &o); err == nil {
		r = o.carryOut()
	}
	r.say()
	return 0
}

func (r *report) say() { _ = json.NewEncoder(os.Stdout).Encode(r) }

func (o order) carryOut() (r report) {
	ctx := context.Background()
	k := &killer{at: o.Kill, steps: pullSteps}
	switch o.Verb {
	case "push":
		k.steps = pushSteps
	case "init":
		k.steps = initSteps
	}
	raw, err := bucket.Open(ctx, testbed.FileURL(o.Store), bucket.Options{Observer: k.watch(o.Store, "store")})
	if err != nil {
		return report{Err: err.Error()}
	}
	store := &meter{Store: raw}
	k.meter = store
	switch o.Verb {
	case "pull":
		var res *apply.Result
		if res, err = apply.Run(ctx, store, o.Target, o.apply(k.watch(o.Target, "target"))); err == nil {
			r.Number, r.Written = res.Number, res.BytesWritten
			if res.Verdict != apply.Verified {
				err = fmt.Errorf("the pull ended %s", res.Verdict)
			}
		}
	case "recover":
		err = apply.Recover(ctx, o.Target, o.apply(k.watch(o.Target, "target")))
	case "init":
		err = o.init(ctx, store)
	case "push":
		var res *push.Result
		if res, err = o.push(ctx, store, k.watch(o.State, "state")); err == nil {
			r.Number, r.Unchanged, r.Read = res.Number, res.Unchanged, res.Read
		}
	}
	if err != nil {
		r.Err = err.Error()
	}
	r.Counts, r.Packs, r.PackPuts = k.counts, store.packs.Load(), store.puts.Load()
	return r
}

func (o order) apply(obs durable.Observer) apply.Options {
	return apply.Options{Channel: channel, Release: o.Release, Connections: o.Connections, Key: o.Secret, Now: time.Now, Observer: obs}
}

func (o order) init(ctx context.Context, store bucket.Store) error {
	_, err := repo.Init(ctx, store, repo.InitOptions{Key: o.Secret, Root: rootKey(), Release: releaseKey(), Now: time.Now()})
	return err
}

// push does the same as the push command.
func (o order) push(ctx context.Context, store bucket.Store, obs durable.Observer) (*push.Result, error) {
	state, err := durable.Open(o.State, durable.Options{Observer: obs})
	if err != nil {
		return nil, err
	}
	defer state.Close()
	r, err := openRepo(ctx, store, o.Secret, state)
	if err != nil {
		return nil, err
	}
	res, err := push.Run(ctx, r, o.Source, push.Options{Channel: channel, AllowDeletes: true, Rehash: o.Rehash, Connections: o.Connections, Key: releaseKey(),
		State: state, Now: clock})
	return res, errors.Join(err, repo.SaveMemory(state, r.Memory()))
}

func openRepo(ctx context.Context, store bucket.Store, secret []byte, state *durable.Root) (*repo.Repo, error) {
	memory, err := repo.LoadMemory(state)
	if err != nil {
		return nil, err
	}
	r, err := repo.Open(ctx, store, repo.Options{Memory: memory, Key: secret, Now: time.Now})
	if err != nil {
		return nil, err
	}
	return r, repo.SaveMemory(state, r.Memory())
}

func rootKey() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(slices.Repeat([]byte{1}, ed25519.SeedSize))
}

func releaseKey() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(slices.Repeat([]byte{2}, ed25519.SeedSize))
}
