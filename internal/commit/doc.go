// Package commit makes many changes of a folder visible in one go, so that a crash
// at any time leaves a state from which the rest can be done. [Commit.Write] makes
// the whole intent durable as a journal of [Step]s, before any of them is made;
// [Commit.Replay] makes them, from wherever an earlier replay ended; and
// [Commit.Forget] ends the commit.
//
// The first half of the steps clears the way, and is taken back if it cannot be
// done as a whole. The second half only goes forward: steps that cannot be made
// now are returned, and the rest is done.
//
// The package knows names, sizes, times and modes, and nothing of releases.
package commit
