-- name: lock_due_schedules
-- Schedules whose tick has come, the longest due first. Another server's are passed over. In
-- development they tick only while a worker is connected: until `waited_since` they wait for one,
-- whose lease may have ended while the server or the database was away. Everywhere they tick only
-- for tasks that the current version has.
WITH connected AS MATERIALIZED (
    SELECT DISTINCT w.environment_id FROM workers w WHERE w.lease_expires_at > :now
), due AS MATERIALIZED (
    SELECT s.* FROM schedules s JOIN environments e ON e.id = s.environment_id
    WHERE s.due_at <= :now AND (
        e.type <> 'DEVELOPMENT' OR s.due_at <= :waited_since
        OR s.environment_id IN (SELECT c.environment_id FROM connected c)
    )
    ORDER BY s.due_at LIMIT :most FOR NO KEY UPDATE OF s SKIP LOCKED
)
SELECT s.*, EXISTS (
        SELECT FROM background_worker_tasks t
        WHERE t.background_worker_id = e.current_background_worker_id AND t.task_id = s.task_id
            AND t.is_scheduled
    ) AND (
        e.type <> 'DEVELOPMENT'
        OR EXISTS (SELECT FROM connected c WHERE c.environment_id = s.environment_id)
    ) AS can_run
FROM due s JOIN environments e ON e.id = s.environment_id;

-- name: trigger_ticks
-- A run for each of these ticks and its place in the queue, in one statement. The tasks are in the
-- current version, and so their queues are there. A tick that has its run keeps it.
WITH tick AS MATERIALIZED (
    SELECT u.run_id, u.tick_at, u.payload, s.public_id AS schedule_id, s.environment_id, s.task_id,
        e.type, t.ttl_seconds, q.id AS queue_id, c.id AS subqueue_id
    FROM unnest(
        :run_ids::text[], :schedule_ids::bigint[], :tick_ats::timestamptz[], :payloads::text[]
    ) AS u (run_id, schedule_id, tick_at, payload)
    JOIN schedules s ON s.id = u.schedule_id
    JOIN environments e ON e.id = s.environment_id
    JOIN background_worker_tasks t
        ON t.background_worker_id = e.current_background_worker_id AND t.task_id = s.task_id
    JOIN queues q ON q.environment_id = e.id AND q.name = t.queue_name
    JOIN subqueues c ON c.queue_id = q.id AND c.concurrency_key = ''
), waited_for AS MATERIALIZED (
    -- The lock says that a run is on its way: see lock_idle_subqueues.
    SELECT s.id, s.has_queued FROM subqueues s
    WHERE s.id IN (SELECT subqueue_id FROM tick) ORDER BY s.id FOR KEY SHARE
), ordered AS MATERIALIZED (
    SELECT s.id FROM subqueues s
    WHERE s.id IN (SELECT id FROM waited_for WHERE NOT has_queued)
    ORDER BY s.id FOR NO KEY UPDATE
), activated AS (
    UPDATE subqueues s SET has_queued = true FROM ordered o WHERE s.id = o.id
), run AS (
    INSERT INTO runs (
        id, environment_id, task_id, execution_status, status, snapshot_id, queue_id, subqueue_id,
        order_at, payload, payload_type, ttl, ttl_seconds, created_at, updated_at, queued_at,
        schedule_id, tick_at
    )
    SELECT k.run_id, k.environment_id, k.task_id, 'QUEUED', 'QUEUED', 0, k.queue_id, k.subqueue_id,
        :now, k.payload, :payload_type,
        CASE WHEN coalesce(k.ttl_seconds, 1) <> 0 THEN
            coalesce(k.ttl_seconds || 's', CASE k.type WHEN 'DEVELOPMENT' THEN '10m' END) END,
        nullif(coalesce(k.ttl_seconds, CASE k.type WHEN 'DEVELOPMENT' THEN 600 END), 0),
        :now, :now, :now, k.schedule_id, k.tick_at
    FROM tick k JOIN waited_for w ON w.id = k.subqueue_id
    ON CONFLICT DO NOTHING
    RETURNING id, environment_id, subqueue_id, order_at, ttl_seconds, schedule_id
), queued AS (
    INSERT INTO queued_runs (run_id, subqueue_id, background_worker_id, order_at, expires_at)
    SELECT id, subqueue_id, 0, order_at, CASE WHEN ttl_seconds IS NOT NULL
            THEN :now::timestamptz + make_interval(secs => ttl_seconds) END
    FROM run
)
SELECT environment_id, schedule_id FROM run;

-- name: move_schedules
-- What comes after these ticks; one that triggered no run leaves `last_tick_at` as it is.
UPDATE schedules s SET next_tick_at = u.next_tick_at, due_at = u.due_at,
    last_tick_at = coalesce(u.last_tick_at, s.last_tick_at)
FROM unnest(
    :ids::bigint[], :next_tick_ats::timestamptz[], :due_ats::timestamptz[],
    :last_tick_ats::timestamptz[]
) AS u (id, next_tick_at, due_at, last_tick_at)
WHERE s.id = u.id;
