-- name: lock_runs
-- Lock runs in the order of their ids, and read what decides how an attempt may end. Joined after
-- the locking: who waited for a lock would join by what the run was before.
WITH locked AS MATERIALIZED (
    SELECT r.* FROM runs r WHERE r.id = ANY(:run_ids::text[]) ORDER BY r.id FOR NO KEY UPDATE
)
SELECT r.id, r.environment_id, r.lease_id, r.execution_status, r.attempt_number, r.handed_back,
    r.max_attempts, e.type AS environment_type, t.retry, w.public_id AS worker_id,
    -- Registered, or connected, while we waited for the lock: it isn't seen yet.
    r.background_worker_id IS NOT NULL AND t.task_id IS NULL
        OR r.worker_id IS NOT NULL AND w.id IS NULL AS is_incomplete,
    coalesce(r.larger_machine, r.machine, t.machine) AS machine,
    is_awaited(r.id) AS is_awaited
FROM locked r
JOIN environments e ON e.id = r.environment_id
LEFT JOIN background_worker_tasks t
    ON t.background_worker_id = r.background_worker_id AND t.task_id = r.task_id
LEFT JOIN workers w ON w.id = r.worker_id
ORDER BY r.id;

-- name: start_runs
-- Attempts begin.
WITH given AS (
    SELECT * FROM unnest(:run_ids::text[], :started_at::timestamptz[]) AS g (run_id, started_at)
), moved AS (
    UPDATE runs r SET event = 'START', started_at = coalesce(r.started_at, g.started_at),
        updated_at = :now
    FROM given g WHERE r.id = g.run_id
    RETURNING r.id, r.attempt_number, r.background_worker_id, r.task_id, g.started_at,
        coalesce(r.larger_machine, r.machine) AS machine
)
INSERT INTO run_attempts
    (run_id, number, status, background_worker_id, machine, started_at, created_at, updated_at)
SELECT m.id, m.attempt_number, 'EXECUTING', m.background_worker_id, coalesce(m.machine, t.machine),
    m.started_at, :now, :now
FROM moved m
LEFT JOIN background_worker_tasks t
    ON t.background_worker_id = m.background_worker_id AND t.task_id = m.task_id;

-- name: end_attempts
-- Attempts end, each by its event; with RETRY the run goes on later, with all others it ends too.
WITH given AS (
    SELECT * FROM unnest(
        :run_ids::text[], :events::text[], :attempt_statuses::text[], :outputs::text[],
        :output_types::text[], :errors::text[], :finished_at::timestamptz[], :duration_ms::bigint[],
        :due_at::timestamptz[], :larger_machines::text[]
    ) AS g (
        run_id, event, attempt_status, output, output_type, error, finished_at, duration_ms, due_at,
        larger_machine
    )
), moved AS (
    UPDATE runs r SET event = g.event, updated_at = :now,
        duration_ms = r.duration_ms + g.duration_ms,
        output = g.output, output_type = g.output_type,
        larger_machine = coalesce(g.larger_machine, r.larger_machine),
        error = CASE g.event
            WHEN 'RETRY' THEN r.error WHEN 'CONFIRM_CANCEL' THEN r.error ELSE g.error::jsonb
        END,
        finished_at = CASE g.event
            WHEN 'RETRY' THEN NULL WHEN 'CONFIRM_CANCEL' THEN r.finished_at ELSE g.finished_at
        END
    FROM given g WHERE r.id = g.run_id
    RETURNING r.id, r.attempt_number, g.event, g.attempt_status, g.error, g.finished_at, g.due_at
), timed AS (
    INSERT INTO run_timers (run_id, due_at) SELECT id, due_at FROM moved WHERE event = 'RETRY'
)
UPDATE run_attempts a
SET status = m.attempt_status, completed_at = m.finished_at, updated_at = :now,
    error = m.error::jsonb
FROM moved m
WHERE a.run_id = m.id AND a.number = m.attempt_number AND a.status = 'EXECUTING';

-- name: close_handed_back_attempts
-- Attempts that a worker gives back before they end.
UPDATE run_attempts a
SET status = 'FAILED', completed_at = :now, updated_at = :now, error = :error::jsonb
FROM runs r
WHERE r.id = ANY(:run_ids::text[]) AND a.run_id = r.id AND a.number = r.attempt_number
    AND a.status = 'EXECUTING';
