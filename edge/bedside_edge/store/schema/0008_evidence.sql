-- The evidence log (docs/evidence-log.md). Triggers guard against our own mistakes; against root on
-- the box only witnesses help. UPDATE and DELETE triggers do not stop INSERT OR REPLACE, so each
-- table also refuses a key that exists.

-- `nodes` holds the hashes of the perfect subtrees that end with the entry, 32 bytes each, the leaf
-- first: node (l, n) covers entries [n * 2^l, (n + 1) * 2^l) and stands in the row of the last of
-- them. So an append writes one row into the last page of one table, and nothing else.
CREATE TABLE entry (
  i INTEGER PRIMARY KEY,
  data BLOB NOT NULL,
  nodes BLOB NOT NULL CHECK (length(nodes) BETWEEN 32 AND 2048 AND length(nodes) % 32 = 0)
) STRICT;
CREATE TRIGGER entry_next BEFORE INSERT ON entry
WHEN new.i <> (SELECT coalesce(max(i) + 1, 0) FROM entry)
BEGIN SELECT RAISE(ABORT, 'not the next index'); END;
CREATE TRIGGER entry_stays BEFORE UPDATE ON entry
BEGIN SELECT RAISE(ABORT, 'an entry never changes'); END;
CREATE TRIGGER entry_kept BEFORE DELETE ON entry
BEGIN SELECT RAISE(ABORT, 'an entry is never removed'); END;

-- Checkpoints this log signed, each stored before it left
CREATE TABLE cp (
  size INTEGER PRIMARY KEY,
  note BLOB NOT NULL
) STRICT;
CREATE TRIGGER cp_next BEFORE INSERT ON cp
WHEN EXISTS (SELECT 1 FROM cp WHERE size = new.size)
BEGIN SELECT RAISE(ABORT, 'one checkpoint for one size'); END;
CREATE TRIGGER cp_stays BEFORE UPDATE ON cp
BEGIN SELECT RAISE(ABORT, 'a checkpoint never changes'); END;
CREATE TRIGGER cp_kept BEFORE DELETE ON cp
BEGIN SELECT RAISE(ABORT, 'a checkpoint is never removed'); END;

-- Sizes that were handed out to the hub or a witness: the padding schedule goes on from the last
CREATE TABLE cp_out (
  size INTEGER PRIMARY KEY REFERENCES cp (size)
) STRICT;

-- Cosignature lines witnesses returned
CREATE TABLE cosig (
  size INTEGER NOT NULL REFERENCES cp (size),
  name TEXT NOT NULL,
  keyid BLOB NOT NULL,
  line BLOB NOT NULL,
  PRIMARY KEY (size, name, keyid)
) STRICT;

-- This box as a witness of other logs: what it last cosigned of each
CREATE TABLE seen (
  origin TEXT PRIMARY KEY,
  size INTEGER NOT NULL CHECK (size >= 0),
  root BLOB NOT NULL CHECK (length(root) = 32),
  note BLOB NOT NULL
) STRICT;
CREATE TRIGGER seen_grows BEFORE UPDATE ON seen
WHEN new.origin <> old.origin OR new.size < old.size OR (new.size = old.size AND new.root <> old.root)
BEGIN SELECT RAISE(ABORT, 'a witness never goes back'); END;
CREATE TRIGGER seen_next BEFORE INSERT ON seen
WHEN EXISTS (SELECT 1 FROM seen WHERE origin = new.origin)
BEGIN SELECT RAISE(ABORT, 'a witness never forgets'); END;
CREATE TRIGGER seen_kept BEFORE DELETE ON seen
BEGIN SELECT RAISE(ABORT, 'a witness never forgets'); END;

-- Outside the log, and destroyed by an erasure: which study and patient an entry is about, and the
-- salt and payload it commits to, encrypted under the study's or the patient's key
CREATE TABLE entry_about (
  i INTEGER PRIMARY KEY REFERENCES entry (i),
  study_id TEXT NOT NULL DEFAULT '',
  subject_id TEXT NOT NULL DEFAULT '',
  sealed BLOB
) STRICT;
CREATE INDEX entry_about_study ON entry_about (study_id) WHERE study_id <> '';
CREATE INDEX entry_about_subject ON entry_about (subject_id) WHERE subject_id <> '';
