-- What is flashed: two slots for each thing, which one serves, and how it came to that. Times are
-- milliseconds since 1970, UTC, deadlines seconds. The launcher reads and writes these rows with
-- the standard library alone: they only ever grow columns (docs/flashing.md).

CREATE TABLE flash_pairs (
  kind TEXT PRIMARY KEY,                -- app, profile, policy, model/<name>
  active TEXT NOT NULL DEFAULT '' CHECK (active IN ('', 'a', 'b')),
  floor INTEGER NOT NULL DEFAULT 0,     -- nothing below it is installed
  lowest INTEGER NOT NULL DEFAULT 0,    -- nothing below it serves
  applied INTEGER NOT NULL DEFAULT 1 CHECK (applied IN (0, 1))  -- whether the box acts on `active`
) STRICT, WITHOUT ROWID;

CREATE TABLE flash_slots (
  kind TEXT NOT NULL REFERENCES flash_pairs (kind),
  name TEXT NOT NULL CHECK (name IN ('a', 'b')),
  state TEXT NOT NULL DEFAULT 'empty' CHECK (state IN
    ('empty', 'staging', 'staged', 'verified', 'trial', 'good', 'bad')),
  digest TEXT NOT NULL DEFAULT '',      -- sha256 of the manifest
  release_counter INTEGER NOT NULL DEFAULT 0,
  min_counter INTEGER NOT NULL DEFAULT 0,
  tries INTEGER NOT NULL DEFAULT 0 CHECK (tries BETWEEN 0 AND 3),
  deadline INTEGER NOT NULL DEFAULT 0,
  reason TEXT NOT NULL DEFAULT '',
  manifest BLOB NOT NULL DEFAULT x'',
  PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;

-- Every step; `entry` is its place in the evidence log. The launcher cannot write to that log: it
-- leaves NULL, and the box tells the log when it starts.
CREATE TABLE flash_steps (
  seq INTEGER PRIMARY KEY,
  kind TEXT NOT NULL,
  name TEXT NOT NULL,
  what TEXT NOT NULL,
  digest TEXT NOT NULL,
  release_counter INTEGER NOT NULL,
  reason TEXT NOT NULL DEFAULT '',
  actor TEXT NOT NULL,
  at INTEGER NOT NULL,
  body BLOB,                            -- the acceptance record of `good`, what failed of `bad`
  entry INTEGER
) STRICT;
CREATE INDEX flash_steps_untold ON flash_steps (seq) WHERE entry IS NULL;

CREATE TRIGGER flash_counters_never_fall BEFORE UPDATE ON flash_pairs
WHEN NEW.floor < OLD.floor OR NEW.lowest < OLD.lowest
BEGIN SELECT RAISE(ABORT, 'release counters never fall'); END;
CREATE TRIGGER flash_pairs_stay BEFORE DELETE ON flash_pairs
BEGIN SELECT RAISE(ABORT, 'release counters never fall'); END;
CREATE TRIGGER flash_active_is_good BEFORE UPDATE OF active ON flash_pairs
WHEN NEW.active <> '' AND NOT EXISTS (
  SELECT 1 FROM flash_slots WHERE kind = NEW.kind AND name = NEW.active AND state = 'good'
    AND release_counter >= NEW.lowest)
BEGIN SELECT RAISE(ABORT, 'only a good slot that is still permitted serves'); END;
CREATE TRIGGER flash_active_untouched BEFORE UPDATE ON flash_slots
WHEN EXISTS (SELECT 1 FROM flash_pairs WHERE kind = OLD.kind AND active = OLD.name)
BEGIN SELECT RAISE(ABORT, 'the slot in service is not touched'); END;
CREATE TRIGGER flash_steps_kept BEFORE DELETE ON flash_steps
BEGIN SELECT RAISE(ABORT, 'what was flashed is history'); END;
