// Package crash proves that nightferry can be killed at any moment. It contains only tests.
//
// # Killed
//
// A child process (this test program itself) runs a real pull or push. It kills itself with SIGKILL (TerminateProcess
// on Windows) before, or halfway through, one chosen change of the file system. A seed determines a number of such
// points for each phase; the test log shows how many kills hit each phase. A reader that ignores nightferry's own
// folder in the target may then see only the following:
//
//   - Before the journal has its name: the old release, unchanged.
//   - After the catalogue has its name: the new release.
//   - In between, each file is, byte for byte, the old or the new file of its path. A path with the same content in
//     both releases exists. A path with new content exists too, unless its old content is moving to another path: for
//     a moment, both ends of a move may lack their file, which is then stored, whole, in nightferry's own folder.
//   - Everything that the new release needs is on the disk. Recovery needs no store and ends with exactly the new
//     release.
//
// After a killed push, fsck of the bucket passes with all data read. The head is the old or the new release, and every
// object that it refers to exists. The next push succeeds and sends no pack that the index already lists.
//
// # Power loss
//
// A kill keeps everything that was written; a power cut does not. disk_test.go models what a power cut may keep and
// lists the assumptions of the model.
//
// # Other tests
//
// In the fault tests, each call of a store fails, or takes effect and then fails. In the race test, gc, push and pull
// run concurrently. In the interrupt test, Ctrl-C leaves a state from which the next run resumes.
package crash
