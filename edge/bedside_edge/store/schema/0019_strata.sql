-- The grade a patient has in an epoch: that of the first snapshot the patient stood in. A regrade
-- after it counts from the next epoch on, so that a patient stands in one stratum of all releases.
-- `patient` is a keyed hash of its own kind; it stays when the patient is erased, because one who
-- came back in the same epoch would stand in a second stratum. Rows of earlier epochs are deleted.
CREATE TABLE privacy_grades (
  dataset TEXT NOT NULL,
  epoch INTEGER NOT NULL CHECK (epoch >= 1),
  patient TEXT NOT NULL,
  grade INTEGER NOT NULL CHECK (grade BETWEEN 1 AND 5),
  PRIMARY KEY (dataset, epoch, patient)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER privacy_grades_are_fixed BEFORE UPDATE ON privacy_grades
BEGIN SELECT raise(ABORT, 'a grade is fixed for the epoch'); END;
CREATE TRIGGER privacy_grades_stay BEFORE DELETE ON privacy_grades
WHEN old.epoch >= (
  SELECT max(epoch) FROM privacy_grades WHERE dataset = old.dataset
)
BEGIN SELECT raise(ABORT, 'a grade is fixed for the epoch'); END;
