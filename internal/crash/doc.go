// Package crash proves that it is safe to kill nightferry at any moment. It
// holds tests only.
//
// # Killed
//
// A child process, this test program itself, makes a real pull or push and
// ends itself with SIGKILL (TerminateProcess on Windows) before, or half way
// through, one chosen change of the file system. The points are drawn from a
// seed, so many for each phase; a run prints how many fell where. What may be
// seen afterwards, by somebody who reads the target with no knowledge of
// nightferry's own folder:
//
//   - Before the journal has its name: the old release, untouched. After the
//     catalogue has its name: the new one.
//   - In between every file is, byte for byte, the old or the new one of its
//     path, never anything else. A path that is the same in both releases is
//     there. So is one whose content is replaced, unless the old content is on
//     its way to another path: the two sides of a move may both be without
//     their file, and then the file waits, whole, in nightferry's own folder.
//   - All that the new release needs lies on the disk: rolling forward works
//     with no store at hand, and ends with exactly the new release.
//
// Of a killed push the bucket passes fsck with all data read, the head is the
// old or the new release and never leads to anything that is lacking, and the
// next push succeeds without sending again what the index named.
//
// # Power loss
//
// A kill leaves all that was written; a power cut does not. [disk_test.go]
// holds the model of what one may leave, and what it leans on.
//
// The other tests here: every call of a store fails, or happens and then fails
// (faults); gc, push and pull race one another (race); Ctrl-C leaves a state
// that resumes (interrupt).
package crash
