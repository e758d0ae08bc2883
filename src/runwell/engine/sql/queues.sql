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
    (queue_id, environment_id, concurrency_key, concurrency_limit, is_paused, turn, has_queue_rate,
    key_rate_limit, key_rate_window)
SELECT q.id, q.environment_id, g.concurrency_key,
    coalesce(q.concurrency_limit_override, q.concurrency_limit, 2147483647), q.is_paused, c.turn,
    q.rate_limit IS NOT NULL, q.key_rate_limit, q.key_rate_window
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
-- Give the subqueues of a queue its limits, and its pause; the caller has locked the queue. None stays
-- blocked by a rate limit: the next dequeue finds out by what is there now.
WITH ordered AS (
    SELECT id FROM subqueues WHERE queue_id = :queue_id ORDER BY id FOR NO KEY UPDATE
)
UPDATE subqueues s
SET concurrency_limit = coalesce(q.concurrency_limit_override, q.concurrency_limit, 2147483647),
    is_paused = q.is_paused, has_queue_rate = q.rate_limit IS NOT NULL,
    key_rate_limit = q.key_rate_limit, key_rate_window = q.key_rate_window, blocked_until = NULL
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
            THEN r.background_worker_id ELSE 0 END AS background_worker_id,
        queued_region(r.environment_id, r.region) AS region
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
    INSERT INTO queued_runs
        (run_id, subqueue_id, background_worker_id, region, order_at, expires_at)
    SELECT m.id, m.subqueue_id, m.background_worker_id, m.region, m.order_at, m.expires_at
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
-- a subqueue that is empty, paused, at its limit or blocked by a rate limit isn't in the index that is
-- read. One whose rate limit is used up, or is found to be, is blocked until there is room again.
WITH worker AS MATERIALIZED (
    SELECT id, region, lease_expires_at > :now AS is_alive FROM workers
    WHERE public_id = :worker_id AND environment_id = :environment_id
), again AS MATERIALIZED (
    -- The answer to this request was lost: give the same runs.
    SELECT r.id FROM runs r
    WHERE r.worker_id = (SELECT id FROM worker) AND r.dequeue_request_id = :request_id
        AND r.execution_status = 'PENDING_EXECUTING'
), locked_environment AS MATERIALIZED (
    SELECT c.environment_id, c.turn,
        -- Of the locked row, which is read again after it was waited for. Runs that wait for a slot to go
        -- on have the first claim on one.
        CASE WHEN c.is_paused THEN 0 ELSE
            greatest(0, least(:max_runs::integer, c.concurrency_limit - c.running - (
                SELECT count(*) FROM resuming_runs z WHERE z.environment_id = c.environment_id
            )::integer))
        END AS room,
        -- Who was waited for may have carried out this very request: `again` does not see it.
        CASE WHEN c.turn > (
            SELECT o.turn FROM environment_concurrency o WHERE o.environment_id = c.environment_id
        ) THEN has_given_runs((SELECT id FROM worker), :request_id) ELSE false END AS is_repeated,
        e.current_background_worker_id
    FROM environment_concurrency c JOIN environments e ON e.id = c.environment_id
    WHERE c.environment_id = :environment_id AND EXISTS (SELECT FROM worker WHERE is_alive)
        AND NOT EXISTS (SELECT FROM again)
    FOR NO KEY UPDATE OF c
), environment AS MATERIALIZED (
    SELECT l.environment_id, l.turn, CASE WHEN l.is_repeated THEN 0 ELSE l.room END AS room,
        l.current_background_worker_id
    FROM locked_environment l
), versions AS MATERIALIZED (
    SELECT b.id AS wanted, b.id AS runs_on FROM background_workers b
    WHERE b.public_id = ANY(:background_worker_ids::text[]) AND b.environment_id = :environment_id
    UNION ALL
    SELECT 0, b.id FROM background_workers b
    JOIN environment e ON e.current_background_worker_id = b.id
    WHERE b.public_id = ANY(:background_worker_ids::text[])
), reach AS MATERIALIZED (
    -- What the worker may take: runs that any worker may, and those of its region.
    SELECT v.wanted, v.runs_on, '' AS region FROM versions v
    UNION ALL
    SELECT v.wanted, v.runs_on, w.region FROM versions v CROSS JOIN worker w
    WHERE w.region IS NOT NULL
), ready AS MATERIALIZED (
    -- SKIP LOCKED: who holds one of these is about to commit, and wakes us then.
    SELECT s.*
    FROM environment e CROSS JOIN LATERAL (
        SELECT s.id, s.queue_id, s.turn, s.has_queue_rate, s.key_rate_limit, s.key_rate_window, s.starts,
            least(
                s.concurrency_limit - s.running, e.room,
                CASE WHEN s.key_rate_limit IS NOT NULL
                    THEN rate_room(s.key_rate_limit, s.key_rate_window, s.starts, :now) END
            ) AS room
        FROM subqueues s
        WHERE s.environment_id = e.environment_id AND e.room > 0 AND s.has_queued
            AND NOT s.is_paused AND s.running < s.concurrency_limit AND s.blocked_until IS NULL
        ORDER BY s.turn, s.id LIMIT greatest(e.room, 32)
        FOR NO KEY UPDATE SKIP LOCKED
    ) s
), rates AS MATERIALIZED (
    -- One that is being changed is missing here: its subqueues are passed over.
    SELECT a.*, rate_room(a.rate_limit, a.rate_window, a.starts, :now) AS room
    FROM queue_rates a WHERE a.queue_id IN (SELECT queue_id FROM ready WHERE has_queue_rate)
    FOR NO KEY UPDATE OF a SKIP LOCKED
), share AS MATERIALIZED (
    SELECT ceil(e.room::numeric / greatest((SELECT count(*) FROM ready), 1))::integer AS runs
    FROM environment e
), candidates AS MATERIALIZED (
    SELECT y.id AS subqueue_id, y.queue_id, y.queue_room, y.turn, q.run_id, q.runs_on,
        row_number() OVER (PARTITION BY y.id ORDER BY q.order_at, q.run_id) AS round
    FROM (
        SELECT y.id, y.queue_id, y.turn, a.room AS queue_room,
            CASE WHEN y.has_queue_rate THEN least(y.room, coalesce(a.room, 0)) ELSE y.room END AS room
        FROM ready y LEFT JOIN rates a ON a.queue_id = y.queue_id
    ) y CROSS JOIN share h CROSS JOIN LATERAL (
        SELECT u.run_id, u.order_at, v.runs_on
        FROM reach v CROSS JOIN LATERAL (
            SELECT q.run_id, q.order_at FROM queued_runs q
            WHERE q.subqueue_id = y.id AND q.background_worker_id = v.wanted
                AND q.region = v.region
                AND (q.expires_at IS NULL OR q.expires_at > :now)
            ORDER BY q.order_at, q.run_id LIMIT least(y.room, h.runs)
        ) u
        ORDER BY u.order_at, u.run_id LIMIT least(y.room, h.runs)
    ) q
), locked AS MATERIALIZED (
    SELECT r.id, c.runs_on, t.task_id IS NOT NULL AS has_task
    FROM (
        SELECT * FROM (
            SELECT c.*, row_number() OVER (
                PARTITION BY c.queue_id ORDER BY c.round, c.turn, c.subqueue_id
            ) AS place FROM candidates c
        ) c
        WHERE c.queue_room IS NULL OR c.place <= c.queue_room
        ORDER BY c.round, c.turn, c.subqueue_id
    ) c
    JOIN runs r ON r.id = c.run_id
    LEFT JOIN background_worker_tasks t
        ON t.background_worker_id = c.runs_on AND t.task_id = r.task_id
    WHERE r.execution_status = 'QUEUED'
    ORDER BY c.round, c.turn, c.subqueue_id
    LIMIT (SELECT room FROM environment)
    FOR NO KEY UPDATE OF r SKIP LOCKED
), removed AS (
    -- The rows that were seen, and the run with each: one that was dequeued and given back while we
    -- waited has another row, which isn't seen here, and would stay.
    DELETE FROM queued_runs q USING locked l WHERE q.run_id = l.id
    RETURNING l.*
), moved AS (
    UPDATE runs r
    SET event = CASE WHEN l.has_task THEN 'DEQUEUE' ELSE 'AWAIT_VERSION' END,
        worker_id = CASE WHEN l.has_task THEN (SELECT id FROM worker) END,
        dequeue_request_id = CASE WHEN l.has_task THEN :request_id END,
        background_worker_id = CASE WHEN l.has_task THEN l.runs_on ELSE r.background_worker_id END,
        attempt_number = r.attempt_number + l.has_task::integer,
        updated_at = :now
    FROM removed l WHERE r.id = l.id
    RETURNING r.*, l.has_task
), used AS MATERIALIZED (
    -- What is left of the queues' rate limits.
    SELECT a.*, a.room - v.starts AS room_left,
        rate_started(a.rate_window, a.starts, :now, v.starts) AS starts_now
    FROM rates a CROSS JOIN LATERAL (
        SELECT count(*)::integer AS starts FROM moved m WHERE m.queue_id = a.queue_id AND m.has_task
    ) v
), rated AS (
    UPDATE queue_rates a SET starts = u.starts_now,
        reopens_at = CASE WHEN u.room_left > 0 THEN a.reopens_at
            ELSE rate_free_at(u.rate_limit, u.rate_window, u.starts_now, :now) END
    FROM used u WHERE a.queue_id = u.queue_id AND (u.room_left < u.room OR u.room_left = 0)
), looked AS MATERIALIZED (
    SELECT y.id, y.turn, y.starts_now, y.runs,
        NOT y.has_candidates AND y.room > 0 AND (NOT y.has_queue_rate OR y.queue_room > 0) AS is_empty,
        -- The later of the two; null when neither holds.
        greatest(
            CASE WHEN y.queue_room_left = 0 THEN 'infinity'::timestamptz END,
            CASE WHEN y.key_rate_limit IS NOT NULL THEN nullif(
                rate_free_at(y.key_rate_limit, y.key_rate_window, y.starts_now, :now), :now
            ) END
        ) AS blocked_until
    FROM (
        SELECT y.*, g.runs, u.room AS queue_room, u.room_left AS queue_room_left,
            EXISTS (SELECT FROM candidates c WHERE c.subqueue_id = y.id) AS has_candidates,
            CASE WHEN y.key_rate_limit IS NOT NULL
                THEN rate_started(y.key_rate_window, y.starts, :now, coalesce(g.starts, 0))
                ELSE y.starts END AS starts_now
        FROM ready y
        LEFT JOIN used u ON u.queue_id = y.queue_id
        LEFT JOIN (
            SELECT m.subqueue_id, count(*) AS runs,
                count(*) FILTER (WHERE m.has_task)::integer AS starts
            FROM moved m GROUP BY m.subqueue_id
        ) g ON g.subqueue_id = y.id
    ) y
), turned AS (
    -- Who had something and was not served keeps its turn. The others go behind all, those first that
    -- got less: with equal turns the same ones would always come first.
    UPDATE subqueues s SET turn = coalesce(e.turn + o.place, s.turn), starts = o.starts_now,
        blocked_until = o.blocked_until
    FROM environment e, (
        SELECT l.*, CASE WHEN l.runs IS NOT NULL OR l.is_empty THEN row_number() OVER (
            PARTITION BY l.runs IS NOT NULL OR l.is_empty ORDER BY l.runs, l.turn, l.id
        ) END AS place
        FROM looked l
    ) o
    WHERE s.id = o.id AND (o.place IS NOT NULL OR o.blocked_until IS NOT NULL)
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
    (SELECT array_agg(l.id) FROM looked l WHERE l.is_empty) AS empty_subqueue_ids,
    EXISTS (SELECT FROM candidates) AS has_candidates,
    EXISTS (SELECT FROM looked l WHERE l.blocked_until IS NOT NULL) AS has_blocked,
    EXISTS (SELECT FROM locked_environment l WHERE l.is_repeated) AS is_repeated,
    g.id, g.task_id, g.lease_id, g.attempt_number, g.handed_back, g.payload, g.payload_type, g.metadata,
    g.tags,
    g.is_test, g.idempotency_key, coalesce(g.larger_machine, g.machine, t.machine) AS machine, g.created_at,
    g.started_at, g.duration_ms, g.batch_id, g.parent_run_id, g.root_run_id, g.context,
    g.trace_context ->> 'traceparent' AS traceparent,
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

-- name: lock_unused_subqueues
-- The next subqueues: how many there were, up to which one, and those of concurrency keys that nobody
-- has used for so many turns, locked. Whoever is putting a run into one holds its lock.
WITH seen AS MATERIALIZED (
    SELECT s.id, s.environment_id, s.concurrency_key, s.has_queued, s.running, s.turn
    FROM subqueues s WHERE s.id > :after ORDER BY s.id LIMIT :most
), unused AS MATERIALIZED (
    SELECT s.id FROM seen x
    JOIN environment_concurrency c ON c.environment_id = x.environment_id
    JOIN subqueues s ON s.id = x.id
    WHERE x.concurrency_key <> '' AND NOT x.has_queued AND x.running = 0
        AND x.turn < c.turn - :turns::bigint
    ORDER BY s.id FOR UPDATE OF s SKIP LOCKED
)
SELECT (SELECT count(*) FROM seen) AS seen, (SELECT max(id) FROM seen) AS last_id,
    ARRAY(SELECT id FROM unused) AS subqueue_ids;

-- name: delete_unused_subqueues
-- Those of these locked subqueues that no run has anything to do with. A statement of its own, to see
-- what was committed before the locks were taken.
DELETE FROM subqueues s
WHERE s.id = ANY(:subqueue_ids::bigint[]) AND NOT s.has_queued AND s.running = 0
    AND s.blocked_until IS NULL
    -- Starts that a rate limit still counts are remembered nowhere else.
    AND (s.key_rate_limit IS NULL
        OR rate_room(s.key_rate_limit, s.key_rate_window, s.starts, :now) = s.key_rate_limit)
    AND NOT EXISTS (SELECT FROM queued_runs q WHERE q.subqueue_id = s.id)
    AND NOT EXISTS (
        SELECT FROM runs r WHERE r.subqueue_id = s.id AND (
            r.execution_status IN ('RUN_CREATED', 'DELAYED', 'WAITING_TO_RETRY', 'SUSPENDED')
            OR r.released_slots = 2
        )
    )
RETURNING s.id;
