-- name: lock_old_runs
-- The next runs by age: how many there were, up to which one, and those that may go, locked. One stays
-- while it goes on, while the run that triggered it or its root does, while a run has yet to hear of
-- its end, and while an idempotency key of it or of its batch holds.
WITH seen AS MATERIALIZED (
    SELECT r.id FROM runs r WHERE r.id > :after AND r.id < :before ORDER BY r.id LIMIT :most
), old AS MATERIALIZED (
    SELECT r.id FROM seen s JOIN runs r ON r.id = s.id
    WHERE r.execution_status = 'FINISHED' AND r.finished_at < :finished_before
        AND NOT EXISTS (
            SELECT FROM runs p WHERE p.id = ANY(ARRAY[r.parent_run_id, r.root_run_id])
                AND p.execution_status <> 'FINISHED'
        )
        AND NOT EXISTS (
            SELECT FROM waitpoints p JOIN run_waits w ON w.waitpoint_id = p.id WHERE p.run_id = r.id
        )
        AND NOT EXISTS (
            SELECT FROM idempotency_keys k WHERE k.environment_id = r.environment_id
                AND k.task_id = r.task_id AND k.key = r.idempotency_key AND k.run_id = r.id
                AND k.expires_at > :now
        )
        AND NOT EXISTS (
            SELECT FROM batches b WHERE b.id = r.batch_id AND b.key_expires_at > :now
        )
    FOR UPDATE OF r SKIP LOCKED
)
SELECT (SELECT count(*) FROM seen) AS seen, (SELECT max(id) FROM seen) AS last_id,
    ARRAY(SELECT id FROM old) AS run_ids;

-- name: delete_lines_of_runs
-- Some of the lines of these runs; returns how many.
WITH found AS MATERIALIZED (
    SELECT l.run_id, l.attempt_number, l.seq FROM unnest(:run_ids::text[]) AS g (run_id)
    CROSS JOIN LATERAL (
        SELECT l.* FROM run_logs l WHERE l.run_id = g.run_id LIMIT :most
    ) l
    LIMIT :most
), deleted AS (
    DELETE FROM run_logs l USING found f
    WHERE l.run_id = f.run_id AND l.attempt_number = f.attempt_number AND l.seq = f.seq
    RETURNING l.run_id
)
SELECT count(*) FROM deleted;

-- name: delete_runs
-- Locked runs that have no lines any more, with all that belongs to them; their packets are looked
-- after at `packets_expire_at`. Returns the batches that they were in.
WITH deleted AS (
    DELETE FROM runs r WHERE r.id = ANY(:run_ids::text[])
    RETURNING r.id, r.environment_id, r.task_id, r.idempotency_key, r.batch_id, r.payload,
        r.payload_type, r.output, r.output_type
), snapshots AS (
    DELETE FROM run_snapshots s USING deleted d WHERE s.run_id = d.id
), keys AS (
    DELETE FROM idempotency_keys k USING deleted d
    WHERE k.environment_id = d.environment_id AND k.task_id = d.task_id
        AND k.key = d.idempotency_key AND k.run_id = d.id
), of_packets AS MATERIALIZED (
    SELECT environment_id, payload AS path FROM deleted WHERE payload_type = 'application/store'
    UNION
    SELECT environment_id, output FROM deleted WHERE output_type = 'application/store'
), expiring AS (
    UPDATE packets p SET expires_at = :packets_expire_at FROM of_packets o
    WHERE p.environment_id = o.environment_id AND p.path = o.path
)
SELECT batch_id FROM deleted WHERE batch_id IS NOT NULL
UNION
SELECT i.batch_id FROM deleted d JOIN batch_items i ON i.run_id = d.id AND i.is_cached;

-- name: delete_empty_batches
-- Those of these batches of which no run is left.
DELETE FROM batches b WHERE b.id = ANY(:batch_ids::text[]) AND NOT EXISTS (
    SELECT FROM batch_items i JOIN runs r ON r.id = i.run_id WHERE i.batch_id = b.id
);

-- name: delete_old_lines
-- Old ones of the next lines by the age of their runs: how many were seen, and up to which one.
WITH seen AS MATERIALIZED (
    SELECT l.run_id, l.attempt_number, l.seq, l.logged_at FROM run_logs l
    WHERE (l.run_id, l.attempt_number, l.seq)
            > (:after_run::text, :after_attempt::integer, :after_seq::integer)
        AND l.run_id < :before
    ORDER BY l.run_id, l.attempt_number, l.seq LIMIT :most
), deleted AS (
    DELETE FROM run_logs l USING seen s
    WHERE l.run_id = s.run_id AND l.attempt_number = s.attempt_number AND l.seq = s.seq
        AND s.logged_at < :logged_before
)
SELECT s.run_id, s.attempt_number, s.seq, (SELECT count(*) FROM seen) AS seen
FROM seen s ORDER BY s.run_id DESC, s.attempt_number DESC, s.seq DESC LIMIT 1;

-- name: delete_old_batches
-- The next batches by age of which no run is left, or never was one: how many were seen, and up to
-- which one.
WITH seen AS MATERIALIZED (
    SELECT b.id, b.key_expires_at FROM batches b
    WHERE b.id > :after AND b.id < :before ORDER BY b.id LIMIT :most
), deleted AS (
    DELETE FROM batches b USING seen s
    WHERE b.id = s.id AND (s.key_expires_at IS NULL OR s.key_expires_at <= :now)
        AND NOT EXISTS (SELECT FROM batch_items i JOIN runs r ON r.id = i.run_id WHERE i.batch_id = b.id)
)
SELECT (SELECT count(*) FROM seen) AS seen, (SELECT max(id) FROM seen) AS last_id;
