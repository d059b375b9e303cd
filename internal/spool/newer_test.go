package spool

import (
	"bytes"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nightferry/internal/wire"
)

// TestNewerDatabase: a database made by a newer agent is refused, with both versions named. It is neither changed
// nor treated as damaged.
func TestNewerDatabase(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s.db")
	s := openAt(t, path, 0)
	try(t, s.Append(t.Context(), wire.Event{Kind: wire.ProblemEvent, Body: []byte("kept")}))
	try(t, s.Close())
	db, err := sql.Open("sqlite", path)
	try(t, err)
	_, err = db.ExecContext(t.Context(), "PRAGMA user_version = 99")
	try(t, err)
	try(t, db.Close())
	before, err := os.ReadFile(path)
	try(t, err)
	_, err = Open(t.Context(), path, Options{Now: time.Now})
	if err == nil || !strings.Contains(err.Error(), "version 99") || !strings.Contains(err.Error(), fmt.Sprintf("knows %d", version)) || !strings.Contains(err.Error(), "upgrade") {
		t.Errorf("got %v", err)
	}
	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("it was changed: %v", err)
	}
	if all, err := filepath.Glob(path + ".damaged*"); err != nil || len(all) != 0 {
		t.Errorf("set aside: %v, %v", all, err)
	}
}
