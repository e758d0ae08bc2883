-- name: begin
-- Where the log of changes is, which of its last entries can be seen, and the view of this moment. A
-- sequence that nobody has asked yet says 1, as if that had been given.
SELECT pg_current_snapshot()::text AS view,
    CASE WHEN q.is_called THEN q.last_value ELSE 0 END AS high, ARRAY(
    SELECT s.id FROM run_snapshots s WHERE s.id > q.last_value - :behind
    UNION ALL
    SELECT c.id FROM run_changes c WHERE c.id > q.last_value - :behind
) AS ids
FROM run_snapshots_id_seq q;

-- name: identify_database
-- What is another one after the database was restored from a copy, or another server took its place.
SELECT s.system_identifier::text || '/' || c.timeline_id::text || '/' || current_database()
FROM pg_control_system() s, pg_control_checkpoint() c;

-- name: list_changes
-- The next entries of the log, those of `gaps` that can be seen by now, and the view of this moment.
SELECT pg_current_snapshot()::text AS view, f.ids, f.run_ids
FROM (
    SELECT coalesce(array_agg(l.id), '{}') AS ids, coalesce(array_agg(l.run_id), '{}') AS run_ids
    FROM (
        (SELECT s.id, s.run_id FROM run_snapshots s WHERE s.id > :high ORDER BY s.id LIMIT :most)
        UNION ALL
        (SELECT c.id, c.run_id FROM run_changes c WHERE c.id > :high ORDER BY c.id LIMIT :most)
        UNION ALL
        SELECT s.id, s.run_id FROM run_snapshots s WHERE s.id = ANY(:gaps::bigint[])
        UNION ALL
        SELECT c.id, c.run_id FROM run_changes c WHERE c.id = ANY(:gaps::bigint[])
    ) l
) f;

-- name: list_memberships
-- The tags and batches of runs.
SELECT r.id, r.environment_id, r.tags,
    array_remove(ARRAY(
        SELECT i.batch_id FROM batch_items i WHERE i.run_id = r.id AND i.is_cached
    ) || r.batch_id, NULL) AS batch_ids
FROM runs r WHERE r.id = ANY(:run_ids::text[]);

-- name: delete_old_changes
-- Entries of the log that everybody has passed; returns how many were looked at.
WITH seen AS MATERIALIZED (
    SELECT c.id, c.created_at FROM run_changes c ORDER BY c.id LIMIT :most
), deleted AS (
    DELETE FROM run_changes c USING seen s WHERE c.id = s.id AND s.created_at < :before
    RETURNING c.id
)
SELECT count(*) FROM deleted;
