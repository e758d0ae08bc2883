-- name: list_tasks
-- The tasks of an environment's current version.
SELECT t.task_id, t.description, t.file_path, t.export_name, t.queue_name, t.machine,
    t.is_scheduled, t.payload_schema
FROM environments e
JOIN background_worker_tasks t ON t.background_worker_id = e.current_background_worker_id
WHERE e.id = :environment_id
ORDER BY t.task_id;

-- name: list_versions
-- The newest versions of an environment, with how many tasks each has.
SELECT b.public_id, b.version, b.created_at, b.id = e.current_background_worker_id AS is_current,
    (SELECT count(*)::integer FROM background_worker_tasks t WHERE t.background_worker_id = b.id)
        AS task_count
FROM background_workers b
JOIN environments e ON e.id = b.environment_id
WHERE b.environment_id = :environment_id
ORDER BY b.id DESC LIMIT :most;

-- name: read_activity
-- What the newest runs did, by task and the interval in which they were triggered.
SELECT n.task_id, date_bin(:interval::interval, n.created_at, :since::timestamptz) AS begins_at,
    count(*)::integer AS total,
    count(*) FILTER (WHERE n.status IN
        ('FAILED', 'CRASHED', 'SYSTEM_FAILURE', 'TIMED_OUT', 'INTERRUPTED'))::integer AS failed,
    count(*) FILTER (WHERE n.status IN ('DEQUEUED', 'EXECUTING'))::integer AS running,
    (avg(extract(epoch FROM n.started_at - coalesce(n.queued_at, n.created_at))) * 1000)::float8
        AS queue_ms,
    (avg(n.duration_ms) FILTER (WHERE n.finished_at IS NOT NULL))::float8 AS duration_ms
FROM (
    SELECT r.task_id, r.status, r.created_at, r.queued_at, r.started_at, r.finished_at, r.duration_ms
    FROM runs r
    WHERE r.environment_id = :environment_id AND r.created_at >= :since
    ORDER BY r.id DESC LIMIT :most
) n
GROUP BY n.task_id, begins_at;
