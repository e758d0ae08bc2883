-- name: create_queue
-- A queue that is not there yet.
INSERT INTO queues (public_id, environment_id, name, concurrency_limit, created_at)
VALUES (:public_id, :environment_id, :name, :concurrency_limit, :now)
ON CONFLICT (environment_id, name) DO NOTHING;

-- name: create_queues
-- Queues that are not there yet, without a limit of their own.
INSERT INTO queues (public_id, environment_id, name, created_at)
SELECT g.public_id, :environment_id, g.name, :now
FROM unnest(:public_ids::text[], :names::text[]) AS g (public_id, name)
ORDER BY g.name
ON CONFLICT (environment_id, name) DO NOTHING;

-- name: create_subqueues
-- The parts of queues with these concurrency keys. They go behind those that wait already.
INSERT INTO subqueues
    (queue_id, environment_id, concurrency_key, concurrency_limit, is_paused, turn)
SELECT q.id, q.environment_id, g.concurrency_key,
    coalesce(q.concurrency_limit_override, q.concurrency_limit, 2147483647), q.is_paused, c.turn
FROM unnest(:names::text[], :concurrency_keys::text[]) AS g (name, concurrency_key)
JOIN queues q ON q.environment_id = :environment_id AND q.name = g.name
JOIN environment_concurrency c ON c.environment_id = q.environment_id
ORDER BY q.name, g.concurrency_key
-- A change of the limit waits for this, or this for the change.
FOR SHARE OF q
ON CONFLICT (queue_id, concurrency_key) DO NOTHING;

-- name: set_queue_limit
-- Change a queue's limit, to its environment's at most; null removes it. The row stays locked, so that
-- new subqueues wait for it.
UPDATE queues q SET concurrency_limit = l.concurrency_limit
FROM (
    SELECT CASE WHEN :concurrency_limit::integer IS NOT NULL
        THEN least(:concurrency_limit, e.concurrency_limit) END AS concurrency_limit
    FROM environments e WHERE e.id = :environment_id
) l
WHERE q.environment_id = :environment_id AND q.name = :name
    AND q.concurrency_limit IS DISTINCT FROM l.concurrency_limit
RETURNING q.id;

-- name: copy_queue_settings
-- Give the subqueues of a queue its limit, and its pause; the caller has locked the queue.
WITH ordered AS (
    SELECT id FROM subqueues WHERE queue_id = :queue_id ORDER BY id FOR NO KEY UPDATE
)
UPDATE subqueues s
SET concurrency_limit = coalesce(q.concurrency_limit_override, q.concurrency_limit, 2147483647),
    is_paused = q.is_paused
FROM ordered o CROSS JOIN queues q WHERE s.id = o.id AND q.id = :queue_id;

-- name: enqueue_runs
-- Runs go into their queues: those whose hold is over (ENQUEUE), and in their old place those that a
-- worker gives back (HAND_BACK). Whoever calls this holds the locks of the runs.
WITH moved AS (
    UPDATE runs r SET event = t.event, updated_at = :now,
        -- One that is given back before it started keeps the time at which its time to live began.
        queued_at = CASE WHEN t.event = 'HAND_BACK' AND r.started_at IS NULL
            THEN r.queued_at ELSE :now END,
        -- A number that no attempt had yet is used again.
        attempt_number = r.attempt_number - (r.execution_status = 'PENDING_EXECUTING')::integer,
        handed_back = r.handed_back
            + (t.event = 'HAND_BACK' AND r.execution_status <> 'PENDING_EXECUTING')::integer
    FROM run_transitions t
    WHERE r.id = ANY(:run_ids::text[]) AND t.from_status = r.execution_status AND t.event = :event
    RETURNING r.id, r.environment_id, r.subqueue_id, r.order_at,
        CASE WHEN r.started_at IS NULL
            THEN r.queued_at + make_interval(secs => r.ttl_seconds) END AS expires_at,
        CASE WHEN r.is_version_locked
                OR :pin_versions::boolean AND (r.event = 'HAND_BACK' OR r.attempt_number > 0)
            THEN r.background_worker_id ELSE 0 END AS background_worker_id
), waited_for AS MATERIALIZED (
    SELECT s.id, s.has_queued FROM subqueues s
    WHERE s.id IN (SELECT subqueue_id FROM moved) ORDER BY s.id FOR KEY SHARE
), ordered AS MATERIALIZED (
    SELECT s.id FROM subqueues s
    WHERE s.id IN (SELECT id FROM waited_for WHERE NOT has_queued)
    ORDER BY s.id FOR NO KEY UPDATE
), activated AS (
    -- Not `AND NOT s.has_queued`: that is as it was before we waited for who retired the subqueue.
    UPDATE subqueues s SET has_queued = true FROM ordered o WHERE s.id = o.id
), untimed AS (
    DELETE FROM run_timers WHERE run_id IN (SELECT id FROM moved)
), queued AS (
    INSERT INTO queued_runs (run_id, subqueue_id, background_worker_id, order_at, expires_at)
    SELECT m.id, m.subqueue_id, m.background_worker_id, m.order_at, m.expires_at
    FROM moved m JOIN waited_for w ON w.id = m.subqueue_id
)
SELECT id, environment_id FROM moved;

-- name: unqueue_runs
-- Runs that ended before they started leave queue and timers.
WITH unqueued AS (DELETE FROM queued_runs WHERE run_id = ANY(:run_ids::text[]))
DELETE FROM run_timers WHERE run_id = ANY(:run_ids::text[]);

-- name: dequeue_runs
-- Hand runs to a worker, in one round trip. Subqueues take turns: those served longest ago go first,
-- each gives an equal share. Its cost depends on how many are asked for, not on how many wait:
-- a subqueue that is empty, paused or at its limit isn't in the index that is read.
WITH worker AS MATERIALIZED (
    SELECT id, lease_expires_at > :now AS is_alive FROM workers
    WHERE public_id = :worker_id AND environment_id = :environment_id
), again AS MATERIALIZED (
    -- The answer to this request was lost: give the same runs.
    SELECT r.id FROM runs r
    WHERE r.worker_id = (SELECT id FROM worker) AND r.dequeue_request_id = :request_id
        AND r.execution_status = 'PENDING_EXECUTING'
), environment AS MATERIALIZED (
    SELECT c.environment_id, c.turn,
        -- Of the locked row, which is read again after it was waited for. Runs that wait for a slot to go
        -- on have the first claim on one.
        CASE WHEN c.is_paused THEN 0 ELSE
            greatest(0, least(:max_runs::integer, c.concurrency_limit - c.running - (
                SELECT count(*) FROM resuming_runs z WHERE z.environment_id = c.environment_id
            )::integer))
        END AS room,
        e.current_background_worker_id
    FROM environment_concurrency c JOIN environments e ON e.id = c.environment_id
    WHERE c.environment_id = :environment_id AND EXISTS (SELECT FROM worker WHERE is_alive)
        AND NOT EXISTS (SELECT FROM again)
    FOR NO KEY UPDATE OF c
), versions AS MATERIALIZED (
    SELECT b.id AS wanted, b.id AS runs_on FROM background_workers b
    WHERE b.public_id = ANY(:background_worker_ids::text[]) AND b.environment_id = :environment_id
    UNION ALL
    SELECT 0, b.id FROM background_workers b
    JOIN environment e ON e.current_background_worker_id = b.id
    WHERE b.public_id = ANY(:background_worker_ids::text[])
), ready AS MATERIALIZED (
    -- SKIP LOCKED: who holds one of these is about to commit, and wakes us then.
    SELECT s.id, s.turn, s.room
    FROM environment e CROSS JOIN LATERAL (
        SELECT s.id, s.turn, least(s.concurrency_limit - s.running, e.room) AS room
        FROM subqueues s
        WHERE s.environment_id = e.environment_id AND e.room > 0
            AND s.has_queued AND NOT s.is_paused AND s.running < s.concurrency_limit
        ORDER BY s.turn, s.id LIMIT greatest(e.room, 32)
        FOR NO KEY UPDATE SKIP LOCKED
    ) s
), share AS MATERIALIZED (
    SELECT ceil(e.room::numeric / greatest((SELECT count(*) FROM ready), 1))::integer AS runs
    FROM environment e
), candidates AS MATERIALIZED (
    SELECT y.id AS subqueue_id, y.turn, q.run_id, q.runs_on,
        row_number() OVER (PARTITION BY y.id ORDER BY q.order_at, q.run_id) AS round
    FROM ready y CROSS JOIN share h CROSS JOIN LATERAL (
        SELECT u.run_id, u.order_at, v.runs_on
        FROM versions v CROSS JOIN LATERAL (
            SELECT q.run_id, q.order_at FROM queued_runs q
            WHERE q.subqueue_id = y.id AND q.background_worker_id = v.wanted
                AND (q.expires_at IS NULL OR q.expires_at > :now)
            ORDER BY q.order_at, q.run_id LIMIT least(y.room, h.runs)
        ) u
        ORDER BY u.order_at, u.run_id LIMIT least(y.room, h.runs)
    ) q
), locked AS MATERIALIZED (
    SELECT r.id, c.runs_on, t.task_id IS NOT NULL AS has_task
    FROM (SELECT * FROM candidates ORDER BY round, turn, subqueue_id) c
    JOIN runs r ON r.id = c.run_id
    LEFT JOIN background_worker_tasks t
        ON t.background_worker_id = c.runs_on AND t.task_id = r.task_id
    WHERE r.execution_status = 'QUEUED'
    ORDER BY c.round, c.turn, c.subqueue_id
    LIMIT (SELECT room FROM environment)
    FOR NO KEY UPDATE OF r SKIP LOCKED
), moved AS (
    UPDATE runs r
    SET event = CASE WHEN l.has_task THEN 'DEQUEUE' ELSE 'AWAIT_VERSION' END,
        worker_id = CASE WHEN l.has_task THEN (SELECT id FROM worker) END,
        dequeue_request_id = CASE WHEN l.has_task THEN :request_id END,
        background_worker_id = CASE WHEN l.has_task THEN l.runs_on ELSE r.background_worker_id END,
        attempt_number = r.attempt_number + l.has_task::integer,
        updated_at = :now
    FROM locked l WHERE r.id = l.id
    RETURNING r.*, l.has_task
), removed AS (
    DELETE FROM queued_runs q USING moved m WHERE q.run_id = m.id
), turned AS (
    -- Who had something and was not served keeps its turn. The others go behind all, those first that
    -- got less: with equal turns the same ones would always come first.
    UPDATE subqueues s SET turn = e.turn + o.place
    FROM environment e, (
        SELECT y.id, row_number() OVER (ORDER BY g.runs, y.turn, y.id) AS place
        FROM ready y
        LEFT JOIN (SELECT subqueue_id, count(*) AS runs FROM moved GROUP BY subqueue_id) g
            ON g.subqueue_id = y.id
        WHERE g.runs IS NOT NULL
            OR NOT EXISTS (SELECT FROM candidates c WHERE c.subqueue_id = y.id)
    ) o
    WHERE s.id = o.id
), counted AS (
    UPDATE environment_concurrency c SET turn = e.turn + (SELECT count(*) FROM ready)
    FROM environment e
    WHERE c.environment_id = e.environment_id AND EXISTS (SELECT FROM ready)
), given AS (
    SELECT m.* FROM moved m WHERE m.has_task
    UNION ALL
    SELECT r.*, true FROM runs r JOIN again a ON a.id = r.id
)
SELECT (SELECT count(*) FROM worker) AS workers,
    (SELECT array_agg(y.id) FROM ready y
        WHERE NOT EXISTS (SELECT FROM candidates c WHERE c.subqueue_id = y.id)) AS empty_subqueue_ids,
    EXISTS (SELECT FROM candidates) AS has_candidates,
    g.id, g.task_id, g.lease_id, g.attempt_number, g.payload, g.payload_type, g.metadata, g.tags,
    g.is_test, g.idempotency_key, coalesce(g.larger_machine, g.machine, t.machine) AS machine, g.created_at,
    g.started_at, g.duration_ms, g.batch_id, g.parent_run_id, g.root_run_id, g.context,
    g.max_attempts, coalesce(g.max_duration, t.max_duration) AS max_duration, t.retry,
    b.public_id AS background_worker_id, b.version, q.public_id AS queue_id, q.name AS queue_name
FROM (SELECT) one
LEFT JOIN given g ON true
LEFT JOIN background_workers b ON b.id = g.background_worker_id
LEFT JOIN background_worker_tasks t
    ON t.background_worker_id = g.background_worker_id AND t.task_id = g.task_id
LEFT JOIN queues q ON q.id = g.queue_id
ORDER BY g.order_at, g.id;

-- name: lock_idle_subqueues
-- Of these subqueues, those that nobody is putting a run into. A trigger holds a key share lock from
-- before it puts its run in until it commits, so that a full lock says: nothing is on its way.
SELECT id FROM subqueues WHERE id = ANY(:subqueue_ids::bigint[]) AND has_queued
ORDER BY id FOR UPDATE SKIP LOCKED;

-- name: retire_subqueues
-- Mark those of them empty that are. A statement of its own, to see what was committed before the
-- locks were taken.
UPDATE subqueues s SET has_queued = false
WHERE s.id = ANY(:subqueue_ids::bigint[])
    AND NOT EXISTS (SELECT FROM queued_runs q WHERE q.subqueue_id = s.id)
RETURNING s.id;
