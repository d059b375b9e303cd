// Package collect keeps a repository small and whole: GC removes what no
// retained release needs, Fsck proves that all that is needed is there. The
// orders in which GC deletes, and why a push or a pull beside it is safe, are
// derived in docs/ordering.md.
package collect
