// Package commit makes many changes of a folder visible in one commit. A crash at any time leaves a state from
// which the commit can be finished. [Commit.Write] makes all [Step]s durable in a journal before the first one is
// made. [Commit.Replay] makes the steps and can resume after a crash. [Commit.Forget] ends the commit.
//
// The first half of the steps clears the way. If any of them fails, the whole half is rolled back. The second half
// only goes forward: steps that cannot be made now are returned, and all others are made.
//
// The package knows names, sizes, times and modes, but not releases.
package commit
