-- Schema 11: until when no alert is sent of an incident, nor of another one with the same key.

ALTER TABLE incidents ADD COLUMN silenced INTEGER NOT NULL DEFAULT 0;
CREATE INDEX incidents_silenced ON incidents (key, silenced) WHERE silenced > 0;
