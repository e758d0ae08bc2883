-- name: lock_waiting_run
-- Lock the run that is to wait. Joined after the locking: who waited for the lock would join by what
-- the run was before.
WITH locked AS MATERIALIZED (
    SELECT r.* FROM runs r
    WHERE r.id = :run_id AND r.environment_id = :environment_id FOR NO KEY UPDATE
)
SELECT r.id, r.lease_id, r.execution_status, r.subqueue_id, s.concurrency_limit
FROM locked r JOIN subqueues s ON s.id = r.subqueue_id;

-- name: forget_waits
-- The run has the results of these waits.
DELETE FROM run_waits WHERE run_id = :run_id AND wait_id = ANY(:wait_ids::text[]);

-- name: lock_awaited_runs
-- The runs that are to be waited for; none of them can end before this transaction does.
SELECT r.id, r.subqueue_id FROM runs r
WHERE r.id = ANY(:run_ids::text[]) AND r.environment_id = :environment_id ORDER BY r.id FOR SHARE;

-- name: insert_run_waitpoints
-- A waitpoint for each of these locked runs that has none; complete when the run has ended already.
INSERT INTO waitpoints (id, environment_id, type, status, run_id, created_at, completed_at)
SELECT 'waitpoint_' || substr(r.id, 5), r.environment_id, 'RUN',
    CASE r.execution_status WHEN 'FINISHED' THEN 'COMPLETED' ELSE 'PENDING' END, r.id, :now,
    CASE r.execution_status WHEN 'FINISHED' THEN :now::timestamptz END
FROM runs r WHERE r.id = ANY(:run_ids::text[])
ORDER BY r.id
ON CONFLICT (run_id) WHERE run_id IS NOT NULL DO NOTHING;

-- name: insert_date_waitpoints
-- Waitpoints that an instant completes.
INSERT INTO waitpoints (id, environment_id, type, status, due_at, created_at, completed_at)
SELECT g.id, :environment_id, 'DATETIME',
    CASE WHEN g.due_at <= :now THEN 'COMPLETED' ELSE 'PENDING' END, g.due_at, :now,
    CASE WHEN g.due_at <= :now THEN :now::timestamptz END
FROM unnest(:ids::text[], :due_at::timestamptz[]) AS g (id, due_at);

-- name: lock_tokens
-- Tokens that are to be waited for; none of them can be completed before this transaction ends.
SELECT id FROM waitpoints
WHERE id = ANY(:ids::text[]) AND environment_id = :environment_id AND type = 'MANUAL'
ORDER BY id FOR SHARE;

-- name: find_known_waits
-- Which of these waits were told of before: the answer to that was lost.
SELECT DISTINCT wait_id FROM run_waits WHERE run_id = :run_id AND wait_id = ANY(:wait_ids::text[]);

-- name: insert_waits
-- A run waits on these.
INSERT INTO run_waits (run_id, wait_id, position, waitpoint_id, created_at)
SELECT :run_id, g.wait_id, g.position, g.waitpoint_id, :now
FROM unnest(:wait_ids::text[], :positions::integer[], :waitpoint_ids::text[])
    AS g (wait_id, position, waitpoint_id)
ON CONFLICT (run_id, wait_id, position) DO NOTHING;

-- name: count_recursive_waits
-- How many of the runs that a run descends from, itself included, would have given their slot of one
-- subqueue to another.
WITH RECURSIVE line AS (
    SELECT r.id, r.parent_run_id, r.subqueue_id, 2::smallint AS released_slots, 0 AS depth
    FROM runs r WHERE r.id = :run_id
    UNION ALL
    SELECT p.id, p.parent_run_id, p.subqueue_id, p.released_slots, l.depth + 1
    FROM line l JOIN runs p ON p.id = l.parent_run_id WHERE l.depth < 1000
)
SELECT count(*) FROM line WHERE subqueue_id = :subqueue_id AND released_slots = 2;

-- name: block_run
-- A run waits: it gives back the environment's slot, and that of its queue too when it waits for runs
-- there. Not while a wait of it is complete: then it has something to do.
UPDATE runs r SET event = 'BLOCK', updated_at = :now,
    released_slots = CASE WHEN EXISTS (
        SELECT FROM run_waits w
        JOIN waitpoints p ON p.id = w.waitpoint_id JOIN runs c ON c.id = p.run_id
        WHERE w.run_id = r.id AND p.status = 'PENDING' AND c.subqueue_id = r.subqueue_id
    ) THEN 2 ELSE 1 END
WHERE r.id = :run_id
    AND EXISTS (SELECT FROM run_waits w WHERE w.run_id = r.id)
    AND NOT EXISTS (
        SELECT FROM run_waits w JOIN waitpoints p ON p.id = w.waitpoint_id
        WHERE w.run_id = r.id GROUP BY w.wait_id HAVING bool_and(p.status = 'COMPLETED')
    )
RETURNING r.released_slots;

-- name: wake_run
-- Have a run looked at.
INSERT INTO run_wakes (run_id) VALUES (:run_id);
