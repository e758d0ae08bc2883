-- name: find_run
-- A run with its attempts.
SELECT r.*, b.version,
    (SELECT jsonb_agg(jsonb_build_object(
            'number', a.number, 'status', a.status, 'machine', a.machine, 'error', a.error, 'created_at', a.created_at,
            'updated_at', a.updated_at, 'started_at', a.started_at, 'completed_at', a.completed_at
        ) ORDER BY a.number)
        FROM run_attempts a WHERE a.run_id = r.id) AS attempts,
    EXISTS (SELECT FROM runs c WHERE c.parent_run_id = r.id) AS has_children
FROM runs r LEFT JOIN background_workers b ON b.id = r.background_worker_id
WHERE r.id = :run_id AND r.environment_id = :environment_id;

-- name: find_relatives
-- Parent, root and the first thousand children of a run, each by an index of its own. Payloads and
-- outputs stay where they are: relatives are shown without.
SELECT r.id, r.parent_run_id, r.task_id, r.status, r.queue_id, r.concurrency_key, r.idempotency_key,
    r.is_test, r.tags, r.metadata, NULL AS payload, r.payload_type, NULL AS output, r.output_type,
    NULL AS error, r.ttl, r.depth, r.trigger_function, r.batch_id, r.replay_of, r.region, r.attempt_number,
    r.duration_ms, r.created_at, r.updated_at, r.started_at, r.finished_at, r.delayed_until,
    r.expired_at, b.version
FROM (
    SELECT p.* FROM runs p WHERE p.id IN (:parent_run_id, :root_run_id)
    UNION ALL
    (SELECT c.* FROM runs c WHERE c.parent_run_id = :run_id ORDER BY c.id LIMIT 1000)
) r
LEFT JOIN background_workers b ON b.id = r.background_worker_id
WHERE r.environment_id = :environment_id
ORDER BY r.id;

-- name: has_run
-- Whether an environment has this run.
SELECT EXISTS (SELECT FROM runs WHERE id = :run_id AND environment_id = :environment_id);

-- name: list_older_runs
-- Runs that pass all filters, the newest first, from behind a run on.
SELECT r.*, b.version FROM matching_runs(
    :environment_id, NULL, :statuses, :task_ids, :versions, :tags, :batch_id, :schedule_id,
    :bulk_action_id, :is_test, :created_from, :created_to
) r
LEFT JOIN background_workers b ON b.id = r.background_worker_id
WHERE (:after::text IS NULL OR r.id < :after)
ORDER BY r.id DESC LIMIT :most;

-- name: list_newer_runs
-- Runs that pass all filters, from before a run on, the nearest first.
SELECT r.*, b.version FROM matching_runs(
    :environment_id, NULL, :statuses, :task_ids, :versions, :tags, :batch_id, :schedule_id,
    :bulk_action_id, :is_test, :created_from, :created_to
) r
LEFT JOIN background_workers b ON b.id = r.background_worker_id
WHERE r.id > :before
ORDER BY r.id LIMIT :most;

-- name: expire_runs
-- Runs whose time to live passed before they started.
UPDATE runs r SET event = 'EXPIRE', finished_at = :now, expired_at = :now, updated_at = :now,
    error = jsonb_build_object('type', 'STRING_ERROR', 'raw',
        'Run expired because the TTL (' || r.ttl || ') was reached')
FROM run_transitions t
WHERE r.id = ANY(:run_ids::text[]) AND t.from_status = r.execution_status AND t.event = 'EXPIRE';
