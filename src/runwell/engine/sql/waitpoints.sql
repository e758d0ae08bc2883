-- name: forget_received_waits
-- Runs have the results of these waits, each under the lease that it was sent to.
DELETE FROM run_waits w
USING unnest(:run_ids::text[], :lease_ids::bigint[], :wait_ids::text[])
    AS g (run_id, lease_id, wait_id), runs r
WHERE w.run_id = g.run_id AND w.wait_id = g.wait_id AND r.id = g.run_id AND r.lease_id = g.lease_id;

-- name: take_wakes
-- Runs of which a waitpoint was completed; whoever takes them looks at them in this transaction.
DELETE FROM run_wakes WHERE id IN (
    SELECT id FROM run_wakes ORDER BY id LIMIT :most FOR UPDATE SKIP LOCKED
) RETURNING run_id;

-- name: list_resuming_runs
-- Runs that wait for a slot to go on, where there may be one.
SELECT z.run_id
FROM environment_concurrency c CROSS JOIN LATERAL (
    SELECT z.run_id, z.subqueue_id FROM resuming_runs z
    WHERE z.environment_id = c.environment_id ORDER BY z.order_at, z.run_id LIMIT :most
) z
JOIN subqueues s ON s.id = z.subqueue_id JOIN runs r ON r.id = z.run_id
WHERE c.running < c.concurrency_limit
    AND (r.released_slots < 2 OR s.running < s.concurrency_limit);

-- name: lock_woken_runs
-- Lock runs in the order of their ids.
SELECT id FROM runs WHERE id = ANY(:run_ids::text[]) ORDER BY id FOR NO KEY UPDATE;

-- name: list_runs_to_continue
-- Those of these locked runs that may go on. A statement of its own: a run may have begun another wait
-- while its lock was waited for.
SELECT r.id, r.environment_id, r.subqueue_id, r.execution_status, r.released_slots, r.order_at,
    k.public_id AS worker_id
FROM runs r JOIN workers k ON k.id = r.worker_id
WHERE r.id = ANY(:run_ids::text[])
    AND r.execution_status IN ('EXECUTING', 'EXECUTING_WITH_WAITPOINTS', 'QUEUED_EXECUTING')
    AND EXISTS (
        SELECT FROM run_waits w JOIN waitpoints p ON p.id = w.waitpoint_id
        WHERE w.run_id = r.id GROUP BY w.wait_id HAVING bool_and(p.status = 'COMPLETED')
    )
ORDER BY r.order_at, r.id;

-- name: lock_environments
-- How many more runs may execute in these environments, counted under their lock.
WITH locked AS MATERIALIZED (
    SELECT c.* FROM environment_concurrency c
    WHERE c.environment_id = ANY(:environment_ids::bigint[])
    ORDER BY c.environment_id FOR NO KEY UPDATE
)
SELECT l.environment_id AS id, l.concurrency_limit - l.running AS room FROM locked l;

-- name: lock_subqueues
-- How many more runs may execute in these subqueues, counted under their lock.
SELECT s.id, s.concurrency_limit - s.running AS room FROM subqueues s
WHERE s.id = ANY(:subqueue_ids::bigint[]) ORDER BY s.id FOR NO KEY UPDATE;

-- name: continue_runs
-- These runs have their slots again and go on.
WITH moved AS (
    UPDATE runs SET event = 'CONTINUE', released_slots = 0, updated_at = :now
    WHERE id = ANY(:run_ids::text[]) RETURNING id
)
DELETE FROM resuming_runs z USING moved m WHERE z.run_id = m.id;

-- name: hold_runs
-- These could go on and have to wait for a slot.
WITH moved AS (
    UPDATE runs SET event = 'UNBLOCK', updated_at = :now
    WHERE id = ANY(:run_ids::text[]) RETURNING id, environment_id, subqueue_id, order_at
)
INSERT INTO resuming_runs (run_id, environment_id, subqueue_id, order_at)
SELECT id, environment_id, subqueue_id, order_at FROM moved
ON CONFLICT (run_id) DO NOTHING;

-- name: list_results
-- The results that a worker's runs wait for, those of some waits at a time. Of all outputs and errors of
-- runs together so many bytes are read; the others are left out, and said to be.
WITH complete AS MATERIALIZED (
    SELECT r.id AS run_id, r.lease_id, w.wait_id
    FROM workers k JOIN runs r ON r.worker_id = k.id
    JOIN run_waits w ON w.run_id = r.id JOIN waitpoints p ON p.id = w.waitpoint_id
    WHERE k.public_id = :worker_id AND k.environment_id = :environment_id
        AND r.execution_status = 'EXECUTING'
    GROUP BY r.id, r.lease_id, w.wait_id HAVING bool_and(p.status = 'COMPLETED')
    ORDER BY r.id, w.wait_id LIMIT :most
)
SELECT f.run_id, f.lease_id, f.wait_id, f.type, f.output, f.output_type, f.is_error, f.child_id,
    f.child_task_id, f.child_status, f.child_output_type,
    CASE WHEN f.bytes <= :most_bytes THEN f.child_output END AS child_output,
    CASE WHEN f.bytes <= :most_bytes THEN f.child_error END AS child_error,
    f.bytes > :most_bytes AND (f.child_output IS NOT NULL OR f.child_error IS NOT NULL)
        AS is_left_out
FROM (
    -- The sizes are known without reading what is large.
    SELECT c.run_id, c.lease_id, c.wait_id, w.position, p.type, p.output, p.output_type, p.is_error,
        child.id AS child_id, child.task_id AS child_task_id, child.status AS child_status,
        child.output AS child_output, child.output_type AS child_output_type,
        child.error AS child_error,
        sum(
            coalesce(octet_length(child.output), 0) + coalesce(pg_column_size(child.error), 0)
        ) OVER (ORDER BY c.run_id, c.wait_id, w.position ROWS UNBOUNDED PRECEDING) AS bytes
    FROM complete c
    JOIN run_waits w ON w.run_id = c.run_id AND w.wait_id = c.wait_id
    JOIN waitpoints p ON p.id = w.waitpoint_id
    LEFT JOIN runs child ON child.id = p.run_id
) f
ORDER BY f.run_id, f.wait_id, f.position;

-- name: complete_due_waitpoints
-- Waitpoints whose instant has come; tokens among them have timed out.
UPDATE waitpoints SET status = 'COMPLETED', completed_at = :now, is_error = (type = 'MANUAL')
WHERE id IN (
    SELECT id FROM waitpoints
    WHERE status = 'PENDING' AND due_at IS NOT NULL AND due_at <= :now
    ORDER BY due_at LIMIT :most FOR NO KEY UPDATE SKIP LOCKED
) RETURNING id;

-- name: find_next_due
-- When the next waitpoint is due.
SELECT min(due_at) AS due_at FROM waitpoints WHERE status = 'PENDING' AND due_at IS NOT NULL;
