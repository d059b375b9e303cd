// Package collect keeps a repository small and whole. GC removes everything
// that no retained release needs. Fsck proves that everything needed is
// present. docs/ordering.md derives the orders in which GC deletes, and
// explains why a push or a pull beside it is safe.
package collect
