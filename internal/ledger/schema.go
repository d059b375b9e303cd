package ledger

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
)

// applicationID is stored in the file's header ("nflg"), so that no other SQLite database is opened as a ledger.
const applicationID = 0x6e666c67

//go:embed migrations/*.sql
var migrationFiles embed.FS

// readMigrations returns the schema changes. The first creates schema 1 in an empty file, the second upgrades it to schema
// 2, and so on. A published migration is never changed.
func readMigrations() ([]string, error) {
	files, err := migrationFiles.ReadDir("migrations")
	if err != nil {
		return nil, err
	}
	var list []string
	for i, f := range files {
		if want := fmt.Sprintf("%04d.sql", i+1); f.Name() != want {
			return nil, fmt.Errorf("migration %s: want %s", f.Name(), want)
		}
		text, err := migrationFiles.ReadFile("migrations/" + f.Name())
		if err != nil {
			return nil, err
		}
		list = append(list, string(text))
	}
	return list, nil
}

// migrateSchema upgrades the schema, each step in its own transaction.
func migrateSchema(ctx context.Context, db *sql.DB, path string, steps []string) error {
	var version, app, objects int
	if err := db.QueryRowContext(ctx, `SELECT (SELECT user_version FROM pragma_user_version),
		(SELECT application_id FROM pragma_application_id), (SELECT count(*) FROM sqlite_schema)`).
		Scan(&version, &app, &objects); err != nil {
		return fmt.Errorf("open ledger %q: %w", path, classifyError(err))
	}
	if app != applicationID && (app != 0 || version != 0 || objects != 0) {
		return fmt.Errorf("open ledger %q: it is a database of another program", path)
	}
	if version > len(steps) {
		return &NewerError{Path: path, Found: version, Supported: len(steps)}
	}
	for n := version + 1; n <= len(steps); n++ {
		if err := migrateStep(ctx, db, n, steps[n-1]); err != nil {
			return fmt.Errorf("open ledger %q: bring its schema from %d to %d: %w", path, n-1, n, classifyError(err))
		}
	}
	return nil
}

func migrateStep(ctx context.Context, db *sql.DB, n int, text string) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	// The two pragmas are part of the transaction: they are stored in the file's header page.
	_, err = tx.ExecContext(ctx, fmt.Sprintf("%s;\nPRAGMA application_id = %d; PRAGMA user_version = %d;", text, applicationID, n))
	if err != nil {
		_ = tx.Rollback() // the first error is more useful
		return err
	}
	return tx.Commit()
}
