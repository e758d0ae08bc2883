-- name: read_position
-- Which transactions count now: another text after any commit.
SELECT pg_current_snapshot()::text;
