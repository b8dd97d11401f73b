-- expand
-- A sealed box takes part in nothing new: it charges nobody, makes no report, keeps no new features or
-- batches, takes nothing over and exchanges no letters. A veto or a withdrawal only stops uses.
CREATE TRIGGER sealed_charges BEFORE INSERT ON sync_charges
WHEN (SELECT state FROM box_states ORDER BY seq DESC LIMIT 1) IN ('sealed', 'shutdown')
BEGIN SELECT RAISE(ABORT, 'sealed'); END;
CREATE TRIGGER sealed_reports BEFORE INSERT ON sync_facts
WHEN NEW.fact = 'report' AND (SELECT state FROM box_states ORDER BY seq DESC LIMIT 1) IN ('sealed', 'shutdown')
BEGIN SELECT RAISE(ABORT, 'sealed'); END;
CREATE TRIGGER sealed_features BEFORE INSERT ON features
WHEN (SELECT state FROM box_states ORDER BY seq DESC LIMIT 1) IN ('sealed', 'shutdown')
BEGIN SELECT RAISE(ABORT, 'sealed'); END;
CREATE TRIGGER sealed_batches BEFORE INSERT ON training_batches
WHEN (SELECT state FROM box_states ORDER BY seq DESC LIMIT 1) IN ('sealed', 'shutdown')
BEGIN SELECT RAISE(ABORT, 'sealed'); END;
CREATE TRIGGER sealed_taken BEFORE INSERT ON joint_results
WHEN (SELECT state FROM box_states ORDER BY seq DESC LIMIT 1) IN ('sealed', 'shutdown')
BEGIN SELECT RAISE(ABORT, 'sealed'); END;
CREATE TRIGGER sealed_sources BEFORE INSERT ON extras
WHEN (SELECT state FROM box_states ORDER BY seq DESC LIMIT 1) IN ('sealed', 'shutdown')
BEGIN SELECT RAISE(ABORT, 'sealed'); END;
CREATE TRIGGER sealed_overlaps BEFORE INSERT ON overlaps
WHEN (SELECT state FROM box_states ORDER BY seq DESC LIMIT 1) IN ('sealed', 'shutdown')
BEGIN SELECT RAISE(ABORT, 'sealed'); END;
