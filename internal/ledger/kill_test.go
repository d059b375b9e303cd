package ledger

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// childEnv makes this test binary the process to kill. It commits for several sites concurrently and prints each
// acknowledgement.
const childEnv = "NIGHTFERRY_TEST_LEDGER"

const killSites = 4

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		if err := commitForEver(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func commitForEver(path string) error {
	ctx := context.Background()
	l, err := Open(ctx, path, Options{Now: time.Now})
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	errs := make(chan error, killSites)
	var out sync.Mutex
	for s := range killSites {
		wg.Go(func() {
			// A site that lost an acknowledgement asks for the last sequence by sending a batch again.
			c, err := l.Commit(ctx, Batch{Domain: "apac", Site: fmt.Sprint("s", s), Generation: gen, First: 1})
			if err != nil {
				errs <- err
				return
			}
			for next := c.Last + 1; ; next = c.Last + 1 {
				// Each batch overlaps committed events, as after a lost acknowledgement.
				first := max(1, next-min(next, 3))
				c, err = l.Commit(ctx, batch("apac", fmt.Sprint("s", s), first, int(next-first)+1+int(next%7), runID(s)))
				if err != nil {
					errs <- err
					return
				}
				out.Lock()
				fmt.Printf("%d %d\n", s, c.Last)
				out.Unlock()
			}
		})
	}
	return <-errs
}

func TestKilledWhileCommitting(t *testing.T) {
	seed := uint64(20260301)
	rng := rand.New(rand.NewPCG(seed, 1))
	path := filepath.Join(t.TempDir(), "ledger.db")
	exe, err := os.Executable()
	must(t, err)
	var acked [killSites]int
	rounds := 15
	if testing.Short() {
		rounds = 6
	}
	for round := range rounds {
		cmd := exec.CommandContext(t.Context(), exe)
		cmd.Env = append(os.Environ(), childEnv+"="+path)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		// The kill comes after a random number of acknowledgements and a random delay, so that it can hit any
		// operation.
		in, after := bufio.NewReader(out), 1+rng.IntN(60)
		for n := 0; ; n++ {
			line, err := in.ReadString('\n')
			if errors.Is(err, io.EOF) || errors.Is(err, os.ErrClosed) {
				break
			}
			must(t, err)
			site, last, ok := strings.Cut(strings.TrimSpace(line), " ")
			s, err1 := strconv.Atoi(site)
			v, err2 := strconv.Atoi(last)
			if !ok || err1 != nil || err2 != nil {
				t.Fatalf("round %d: the child says %q", round, line)
			}
			acked[s] = max(acked[s], v)
			if n == after {
				pause := time.Duration(rng.IntN(3000)) * time.Microsecond
				go func() {
					<-time.After(pause)
					_ = cmd.Process.Kill() // the process may have ended
				}()
			}
		}
		_ = cmd.Wait() // fails because the process was killed
		if stderr.Len() > 0 {
			t.Fatalf("round %d: %s", round, &stderr)
		}
		l, err := Open(t.Context(), path, Options{Now: time.Now})
		must(t, err)
		for s := range killSites {
			c, err := l.Commit(t.Context(), Batch{Domain: "apac", Site: fmt.Sprint("s", s), Generation: gen, First: 1})
			must(t, err)
			if int(c.Last) < acked[s] {
				t.Fatalf("round %d: site %d: %d events were acknowledged, %d are there", round, s, acked[s], c.Last)
			}
			wantBodies(t, l, runID(s), int(c.Last))
		}
		must(t, l.Check(t.Context()))
		must(t, l.Close())
	}
	t.Logf("acknowledged: %v", acked)
}
