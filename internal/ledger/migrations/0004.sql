-- Schema 4: the user of an enrollment token on the bus, and when that user ended before its JWT did.

ALTER TABLE tokens ADD COLUMN user TEXT NOT NULL DEFAULT '';
ALTER TABLE tokens ADD COLUMN ended INTEGER NOT NULL DEFAULT 0;
