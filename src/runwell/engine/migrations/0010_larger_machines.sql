-- A run whose memory ran out goes on on a larger machine; attempts remember theirs.
ALTER TABLE runs ADD COLUMN larger_machine text;
ALTER TABLE run_attempts ADD COLUMN machine text;
