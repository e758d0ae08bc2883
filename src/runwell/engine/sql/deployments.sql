-- name: lock_environment
-- Versions of one environment are numbered one after the other.
SELECT e.current_background_worker_id FROM environments e WHERE e.id = :environment_id FOR NO KEY UPDATE;

-- name: find_version_by_hash
-- The newest version with this content.
SELECT id, public_id, version FROM background_workers
WHERE environment_id = :environment_id AND content_hash = :content_hash
ORDER BY id DESC LIMIT 1;

-- name: insert_version
-- The day's next version.
INSERT INTO background_workers
    (public_id, environment_id, version_day, version_number, content_hash, package_version,
    created_at)
SELECT :public_id, :environment_id, :version_day,
    coalesce(max(version_number), 0) + 1, :content_hash, :package_version, :now
FROM background_workers
WHERE environment_id = :environment_id AND version_day = :version_day
RETURNING id, version;

-- name: insert_tasks
-- The tasks of a version, from a JSON array of them.
INSERT INTO background_worker_tasks
    (background_worker_id, task_id, description, file_path, export_name, queue_name, retry, machine,
    max_duration, ttl_seconds, keep_process, payload_schema, is_scheduled, schedule)
SELECT :background_worker_id, t.task_id, t.description, t.file_path, t.export_name, t.queue_name,
    t.retry, t.machine, t.max_duration, t.ttl_seconds, t.keep_process, t.payload_schema,
    t.is_scheduled, t.schedule
FROM jsonb_to_recordset(:tasks::jsonb) AS t (
    task_id text, description text, file_path text, export_name text, queue_name text, retry jsonb,
    machine text, max_duration integer, ttl_seconds integer, keep_process boolean,
    payload_schema jsonb, is_scheduled boolean, schedule jsonb
);

-- name: make_version_current
-- New runs, and those that wait for no particular version, go to this one.
UPDATE environments SET current_background_worker_id = :background_worker_id
WHERE id = :environment_id;

-- name: find_tasks_waited_for
-- Tasks of the current version that runs wait for.
SELECT t.task_id FROM environments e
JOIN background_worker_tasks t ON t.background_worker_id = e.current_background_worker_id
WHERE e.id = :environment_id AND EXISTS (
    SELECT FROM runs r
    WHERE r.environment_id = e.id AND r.task_id = t.task_id AND r.execution_status = 'RUN_CREATED'
);

-- name: find_runs_waiting_for_tasks
-- Runs that wait for these tasks, the oldest first.
SELECT id FROM runs
WHERE environment_id = :environment_id AND task_id = ANY(:task_ids::text[])
    AND execution_status = 'RUN_CREATED'
ORDER BY id LIMIT :most FOR NO KEY UPDATE SKIP LOCKED;

-- name: list_environments_with_waiting_runs
-- Environments in which any run waits for a version.
SELECT DISTINCT environment_id FROM runs WHERE execution_status = 'RUN_CREATED';
