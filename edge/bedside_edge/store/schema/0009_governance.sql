-- Grades of data, and which policy is in force. Times are milliseconds since 1970, UTC.

-- A grade is a label on every object and result, 1 (public) to 5 (special disease). Rows of an
-- earlier version are identifying (4) until the rules look at them again. The triggers hold what
-- no path may get around: what is derived has the highest grade of its study, and a grade falls
-- only with a row in `lowerings`.
ALTER TABLE studies ADD COLUMN grade INTEGER NOT NULL DEFAULT 0 CHECK (grade BETWEEN 0 AND 5);
ALTER TABLE instances ADD COLUMN grade INTEGER NOT NULL DEFAULT 4 CHECK (grade BETWEEN 1 AND 5);
-- Text in the pixels of one of the study's instances, as a sender says
ALTER TABLE studies ADD COLUMN burned_in INTEGER NOT NULL DEFAULT 0 CHECK (burned_in IN (0, 1));
ALTER TABLE results ADD COLUMN grade INTEGER NOT NULL DEFAULT 1 CHECK (grade BETWEEN 1 AND 5);
ALTER TABLE outputs ADD COLUMN grade INTEGER NOT NULL DEFAULT 1 CHECK (grade BETWEEN 1 AND 5);
UPDATE studies SET grade = 4;
UPDATE results SET grade = 4;
UPDATE outputs SET grade = 4;

CREATE TABLE deidentifications (
  deidentification_id TEXT PRIMARY KEY,
  instance_id TEXT NOT NULL,            -- what was made; the row stays when the object is erased
  profile TEXT NOT NULL,                -- profile and options of PS3.15 E, as a word of ours
  actor TEXT NOT NULL,
  at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE lowerings (
  seq INTEGER PRIMARY KEY,
  instance_id TEXT NOT NULL,
  before INTEGER NOT NULL,
  after INTEGER NOT NULL,
  deidentification_id TEXT NOT NULL REFERENCES deidentifications,
  actor TEXT NOT NULL,
  second TEXT NOT NULL,                 -- who confirmed: another person
  at INTEGER NOT NULL,
  CHECK (after < before),
  CHECK (second <> actor AND second LIKE 'person:%' AND actor LIKE 'person:%')
) STRICT;
CREATE INDEX lowerings_instance ON lowerings (instance_id);

CREATE TRIGGER instance_grade_rises_study AFTER INSERT ON instances
WHEN NEW.grade > (SELECT grade FROM studies WHERE study_id = NEW.study_id)
BEGIN
  UPDATE studies SET grade = NEW.grade WHERE study_id = NEW.study_id;
END;

CREATE TRIGGER instance_grade_falls BEFORE UPDATE OF grade ON instances
WHEN NEW.grade < OLD.grade AND NOT EXISTS (
  SELECT 1 FROM lowerings AS l JOIN deidentifications AS d USING (deidentification_id)
  WHERE l.instance_id = NEW.instance_id AND d.instance_id = NEW.instance_id
    AND l.before = OLD.grade AND l.after = NEW.grade)
BEGIN SELECT RAISE(ABORT, 'a grade falls only through a recorded de-identification'); END;

CREATE TRIGGER instance_grade_changes AFTER UPDATE OF grade ON instances
WHEN NEW.grade <> OLD.grade
BEGIN
  UPDATE studies SET grade =
    (SELECT max(grade) FROM instances WHERE study_id = NEW.study_id)
  WHERE study_id = NEW.study_id;
END;

-- The study's grade follows its instances and nothing else.
CREATE TRIGGER study_grade_falls BEFORE UPDATE OF grade ON studies
WHEN NEW.grade < coalesce(
  (SELECT max(grade) FROM instances WHERE study_id = NEW.study_id), NEW.grade)
BEGIN SELECT RAISE(ABORT, 'a study has the highest grade of its instances'); END;

CREATE TRIGGER study_grade_rises_results AFTER UPDATE OF grade ON studies
WHEN NEW.grade > OLD.grade
BEGIN
  UPDATE results SET grade = NEW.grade WHERE study_id = NEW.study_id AND grade < NEW.grade;
  UPDATE outputs SET grade = NEW.grade WHERE study_id = NEW.study_id AND grade < NEW.grade;
END;

CREATE TRIGGER result_grade AFTER INSERT ON results
WHEN NEW.grade < (SELECT max(1, grade) FROM studies WHERE study_id = NEW.study_id)
BEGIN
  UPDATE results SET grade = (SELECT grade FROM studies WHERE study_id = NEW.study_id)
  WHERE seq = NEW.seq;
END;

CREATE TRIGGER output_grade AFTER INSERT ON outputs
WHEN NEW.grade < (SELECT max(1, grade) FROM studies WHERE study_id = NEW.study_id)
BEGIN
  UPDATE outputs SET grade = (SELECT grade FROM studies WHERE study_id = NEW.study_id)
  WHERE output_id = NEW.output_id;
END;

CREATE TRIGGER result_grade_falls BEFORE UPDATE OF grade ON results WHEN NEW.grade < OLD.grade
BEGIN SELECT RAISE(ABORT, 'the grade of a result never falls'); END;

CREATE TRIGGER output_grade_falls BEFORE UPDATE OF grade ON outputs WHEN NEW.grade < OLD.grade
BEGIN SELECT RAISE(ABORT, 'the grade of an object never falls'); END;

-- Which grading rules the held instances were last graded by: a change grades them again, upwards.
CREATE TABLE gradings (
  seq INTEGER PRIMARY KEY,
  digest TEXT NOT NULL,
  raised INTEGER NOT NULL,              -- instances whose grade rose
  at INTEGER NOT NULL
) STRICT;

CREATE TABLE policies (
  revision INTEGER PRIMARY KEY,         -- 1, 2, 3: the highest is in force
  digest TEXT NOT NULL,
  payload BLOB NOT NULL,                -- canonical JSON of the document
  envelope BLOB NOT NULL,               -- as signed; empty for the one shipped with the box
  signers TEXT NOT NULL,                -- JSON, key ids
  actor TEXT NOT NULL,
  at INTEGER NOT NULL
) STRICT;
CREATE TRIGGER policy_kept BEFORE UPDATE ON policies
BEGIN SELECT RAISE(ABORT, 'a policy that was in force is history'); END;
CREATE TRIGGER policy_stays BEFORE DELETE ON policies
BEGIN SELECT RAISE(ABORT, 'a policy that was in force is history'); END;
CREATE TRIGGER policy_next BEFORE INSERT ON policies
WHEN NEW.revision <> (SELECT coalesce(max(revision), 0) + 1 FROM policies)
BEGIN SELECT RAISE(ABORT, 'not the next revision'); END;
