package pains

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"nightferry/internal/apply"
	"nightferry/internal/bucket"
	"nightferry/internal/durable"
)

// errand is the job of a child process.
type errand struct {
	Job   string
	Store string // URL
	Dir   string
	At    int // the change of Dir at which a pull kills itself
}

// command returns a command that runs this binary as a child with the errand.
func (e errand) command(t testing.TB) *exec.Cmd {
	t.Helper()
	b, err := json.Marshal(e)
	must(t, err)
	self, err := os.Executable()
	must(t, err)
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), childJob+"="+string(b))
	return cmd
}

// child runs an errand.
func child(text string) error {
	var e errand
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		return err
	}
	switch e.Job {
	case "killed pull":
		return e.killedPull()
	default:
		return fmt.Errorf("errand %q is not known", e.Job)
	}
}

// killedPull pulls and kills itself at the target's change number At, as kill
// -9 would.
func (e errand) killedPull() error {
	ctx := context.Background()
	store, err := bucket.Open(ctx, e.Store, bucket.Options{})
	if err != nil {
		return err
	}
	var n counter
	_, err = apply.Run(ctx, store, e.Dir, apply.Options{Channel: channel, Now: time.Now, Observer: observer(func(durable.Op) error {
		if n.next() != e.At {
			return nil
		}
		self, err := os.FindProcess(os.Getpid())
		if err == nil {
			err = self.Kill()
		}
		if err == nil {
			select {} // the kill takes a moment
		}
		return err
	})})
	return errors.Join(err, fmt.Errorf("it ended, after fewer than %d changes", e.At))
}
