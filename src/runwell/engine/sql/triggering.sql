-- name: insert_run
-- A new run and its place in the queue, in one statement. No row comes back when the queue or its
-- subqueue isn't there yet; `is_new` is false when the same request was carried out before, or when
-- the idempotency key has a run.
WITH environment AS (
    SELECT e.id, e.type, e.current_background_worker_id FROM environments e
    WHERE e.id = :environment_id
), version AS (
    SELECT b.id FROM background_workers b
    WHERE b.environment_id = :environment_id AND b.version = :version::text
), task AS (
    SELECT t.* FROM background_worker_tasks t
    WHERE t.background_worker_id = coalesce(
            (SELECT id FROM version), (SELECT current_background_worker_id FROM environment)
        ) AND t.task_id = :task_id
), queue AS (
    SELECT q.id FROM queues q
    WHERE q.environment_id = :environment_id AND q.name = coalesce(
        :queue_name::text, (SELECT queue_name FROM task), :default_queue_name
    )
), subqueue AS MATERIALIZED (
    -- The lock says that a run is on its way: see lock_idle_subqueues.
    SELECT s.id, s.has_queued, s.queue_id FROM subqueues s
    WHERE s.queue_id = (SELECT id FROM queue) AND s.concurrency_key = coalesce(:concurrency_key, '')
        -- A version that isn't there, or hasn't the task, is the caller's to refuse.
        AND (:version::text IS NULL OR EXISTS (SELECT FROM version) AND EXISTS (SELECT FROM task))
    FOR KEY SHARE
), claimed AS (
    INSERT INTO idempotency_keys AS k (environment_id, task_id, key, run_id, expires_at)
    SELECT :environment_id, :task_id, :idempotency_key, :run_id, :idempotency_key_expires_at
    FROM subqueue WHERE :idempotency_key::text IS NOT NULL
    ON CONFLICT (environment_id, task_id, key) DO UPDATE
        SET run_id = excluded.run_id, expires_at = excluded.expires_at
        WHERE k.expires_at <= :now
    RETURNING run_id
), parent AS (
    -- A run of another environment is no relative.
    SELECT p.id, coalesce(p.root_run_id, p.id) AS root_run_id, p.depth + 1 AS depth FROM runs p
    WHERE p.id = :parent_run_id AND p.environment_id = :environment_id
), held AS (
    SELECT CASE
            WHEN :delayed_until::timestamptz > :now THEN 'DELAYED'
            WHEN EXISTS (SELECT FROM task) THEN 'QUEUED'
            ELSE 'RUN_CREATED'
        END AS execution_status
), run AS (
    INSERT INTO runs (
        id, environment_id, task_id, execution_status, status, snapshot_id, queue_id, subqueue_id,
        concurrency_key, order_at, priority_seconds, background_worker_id, is_version_locked,
        payload, payload_type, context, metadata, tags, is_test, idempotency_key, max_attempts,
        max_duration, machine, delayed_until, ttl, ttl_seconds, trace_context, created_at, updated_at,
        queued_at, parent_run_id, root_run_id, depth, replay_of
    )
    SELECT :run_id, e.id, :task_id, h.execution_status, 'QUEUED', 0, s.queue_id, s.id,
        :concurrency_key, greatest(:now, CASE h.execution_status WHEN 'DELAYED' THEN :delayed_until END)
            - make_interval(secs => :priority_seconds),
        :priority_seconds, (SELECT id FROM version), EXISTS (SELECT FROM version),
        :payload, :payload_type, :context::jsonb, :metadata::jsonb, :tags::text[], :is_test,
        :idempotency_key, :max_attempts, :max_duration, :machine,
        CASE h.execution_status WHEN 'DELAYED' THEN :delayed_until END,
        coalesce(
            :ttl, (SELECT ttl_seconds || 's' FROM task), CASE e.type WHEN 'DEVELOPMENT' THEN '10m' END
        ),
        coalesce(
            :ttl_seconds, (SELECT ttl_seconds FROM task), CASE e.type WHEN 'DEVELOPMENT' THEN 600 END
        ),
        :trace_context::jsonb, :now, :now, CASE h.execution_status WHEN 'QUEUED' THEN :now END,
        p.id, p.root_run_id, coalesce(p.depth, 0), :replay_of
    FROM environment e CROSS JOIN subqueue s CROSS JOIN held h LEFT JOIN parent p ON true
    WHERE :idempotency_key::text IS NULL OR EXISTS (SELECT FROM claimed)
    ON CONFLICT (id) DO NOTHING
    RETURNING id, execution_status, subqueue_id, order_at, ttl_seconds, background_worker_id,
        delayed_until
), activated AS (
    -- Not `AND NOT s.has_queued`: that is as it was before we waited for who retired the subqueue.
    UPDATE subqueues s SET has_queued = true
    FROM subqueue q WHERE s.id = q.id AND NOT q.has_queued
), queued AS (
    INSERT INTO queued_runs (run_id, subqueue_id, background_worker_id, order_at, expires_at)
    SELECT id, subqueue_id, coalesce(background_worker_id, 0), order_at,
        CASE WHEN ttl_seconds IS NOT NULL
            THEN :now::timestamptz + make_interval(secs => ttl_seconds) END
    FROM run WHERE execution_status = 'QUEUED'
), timed AS (
    INSERT INTO run_timers (run_id, due_at)
    SELECT id, delayed_until FROM run WHERE execution_status = 'DELAYED'
)
SELECT EXISTS (SELECT FROM run) AS is_new FROM subqueue;

-- name: find_task_queue
-- The queue that runs of a task go to by default.
SELECT t.queue_name FROM environments e
JOIN background_worker_tasks t ON t.background_worker_id = coalesce(
    (SELECT b.id FROM background_workers b
        WHERE b.environment_id = e.id AND b.version = :version::text),
    e.current_background_worker_id
)
WHERE e.id = :environment_id AND t.task_id = :task_id;

-- name: find_run_of_key
-- The run that an idempotency key stands for.
SELECT run_id FROM idempotency_keys
WHERE environment_id = :environment_id AND task_id = :task_id AND key = :key;

-- name: has_run
-- Whether a run with this id is there.
SELECT EXISTS (SELECT FROM runs WHERE id = :run_id AND environment_id = :environment_id);

-- name: find_version
-- Whether a version has a task; no row when the environment has no such version.
SELECT EXISTS (
    SELECT FROM background_worker_tasks t
    WHERE t.background_worker_id = b.id AND t.task_id = :task_id
) AS has_task
FROM background_workers b
WHERE b.environment_id = :environment_id AND b.version = :version;
