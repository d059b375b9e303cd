package crash

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
)

// tally counts the kills by phase.
type tally struct {
	steps  []step
	mu     sync.Mutex
	hits   []int
	kinds  map[string]int
	misses int
	second int
}

func newTally(steps []step) *tally {
	return &tally{steps: steps, hits: make([]int, len(steps)), kinds: map[string]int{}}
}

func (y *tally) hit(phase int, op string) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.hits[phase]++
	y.kinds[strings.Join(strings.Fields(op)[:2], " ")]++
}

// missed counts a child that ended before its point. The number of changes varies slightly between runs because
// goroutines interleave differently.
func (y *tally) missed() {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.misses++
}

func (y *tally) twice() {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.second++
}

// log prints the table. It fails the test if a phase has no kills or too many points were missed.
func (y *tally) log(t *testing.T, points int) {
	t.Helper()
	total := 0
	for i, n := range y.hits {
		t.Logf("%5d killed: %s", n, y.steps[i].phase)
		if n == 0 {
			t.Errorf("nothing was killed in this phase: are the steps taken in another order? %s", y.steps[i].phase)
		}
		total += n
	}
	var kinds []string
	for k, n := range y.kinds {
		kinds = append(kinds, fmt.Sprintf("%s %d", k, n))
	}
	slices.Sort(kinds)
	t.Logf("%5d killed in all (%d of them a second time while they recovered), %d of %d points were not reached; at: %s", total, y.second, y.misses, points, strings.Join(kinds, ", "))
	if y.misses > points/20 {
		t.Errorf("%d of %d points were not reached", y.misses, points)
	}
}

// powerTally counts the states that power cuts left.
type powerTally struct {
	mu sync.Mutex
	n  map[string]int
}

func newPowerTally() *powerTally { return &powerTally{n: map[string]int{}} }

func (y *powerTally) add(what string) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.n[what]++
}

func (y *powerTally) get(what string) int {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.n[what]
}

func (y *powerTally) String() string {
	y.mu.Lock()
	defer y.mu.Unlock()
	return fmt.Sprint(y.n)
}
