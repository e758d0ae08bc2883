-- name: find_replayed_run
-- What a replay takes over from a run, with the metadata that it was triggered with.
SELECT r.task_id, r.payload, r.payload_type, r.context, r.tags, r.is_test, r.concurrency_key,
    r.max_attempts, r.max_duration, r.machine, r.priority_seconds, r.ttl, r.region, q.name AS queue_name,
    CASE r.metadata_version WHEN 0 THEN r.metadata ELSE r.original_metadata END AS metadata
FROM runs r JOIN queues q ON q.id = r.queue_id
WHERE r.id = :run_id AND r.environment_id = :environment_id;
