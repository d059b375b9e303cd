-- Schema 3: up to when records were removed by their age, so that a wrong clock cannot remove many at once.

ALTER TABLE meta ADD COLUMN purged INTEGER NOT NULL DEFAULT 0;

-- The audit ends, too, but nothing of the last 90 days can be removed.
DROP TRIGGER audit_delete;
CREATE TRIGGER audit_delete BEFORE DELETE ON audit WHEN OLD.at > (SELECT purged FROM meta) - 7776000000000
BEGIN SELECT raise(ABORT, 'the audit is append only'); END;

-- What people said of an incident: who ended it and why, and who knows of it.
ALTER TABLE incidents ADD COLUMN closed TEXT NOT NULL DEFAULT '';
ALTER TABLE incidents ADD COLUMN acked TEXT NOT NULL DEFAULT '';
