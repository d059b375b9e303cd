-- Schema 8: the targets in which sites have found content of a release, for agents that have lost their own record.

CREATE TABLE fills (
  site    TEXT    NOT NULL,
  channel TEXT    NOT NULL,
  target  TEXT    NOT NULL,
  volume  TEXT    NOT NULL,
  machine BLOB    NOT NULL,
  at      INTEGER NOT NULL,
  PRIMARY KEY (site, channel, target)
) STRICT, WITHOUT ROWID;
