-- What the box remembers of the repository of packages (docs/distribution.md). The rows are the
-- durable cache: python-tuf works in a scratch folder made from them. Times are seconds.

CREATE TABLE tuf_md (
  name TEXT PRIMARY KEY,                -- timestamp.json, root_history/2.root.json, ...
  body BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE tuf_floors (
  role TEXT PRIMARY KEY,
  keys TEXT NOT NULL,                   -- digest of the role's keys: others begin a new floor
  version INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TRIGGER tuf_floors_rise BEFORE UPDATE ON tuf_floors
WHEN NEW.keys = OLD.keys AND NEW.version < OLD.version
BEGIN SELECT RAISE(ABORT, 'versions never fall'); END;
CREATE TRIGGER tuf_floors_stay BEFORE DELETE ON tuf_floors
BEGIN SELECT RAISE(ABORT, 'versions never fall'); END;

CREATE TABLE tuf_seen (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  time_floor INTEGER NOT NULL DEFAULT 0,
  serial INTEGER NOT NULL DEFAULT 0,
  checked_at INTEGER NOT NULL DEFAULT 0, -- last refresh that ended well
  tried_at INTEGER NOT NULL DEFAULT 0,
  code TEXT NOT NULL DEFAULT '',        -- of the last refresh; empty when it ended well
  assignment BLOB NOT NULL DEFAULT x''  -- the newest one, as signed
) STRICT;
INSERT INTO tuf_seen (one) VALUES (1);
CREATE TRIGGER tuf_seen_rises BEFORE UPDATE ON tuf_seen
WHEN NEW.time_floor < OLD.time_floor OR NEW.serial < OLD.serial
BEGIN SELECT RAISE(ABORT, 'neither time nor serial ever falls'); END;

-- The items of that assignment and what was decided of each
CREATE TABLE tuf_items (
  position INTEGER PRIMARY KEY,
  path TEXT NOT NULL UNIQUE,
  sha256 TEXT NOT NULL,
  code TEXT NOT NULL DEFAULT '',        -- why it is refused
  reason TEXT NOT NULL DEFAULT '',
  manifest BLOB NOT NULL DEFAULT x'',   -- when its owner names it
  fetched INTEGER NOT NULL DEFAULT 0 CHECK (fetched IN (0, 1))
) STRICT;
