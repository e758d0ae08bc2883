-- name: list_ended_items
-- What the runs of some of a batch's items came to, as far as they have ended.
SELECT i.index, r.id, r.task_id, r.status, r.output, r.output_type, r.error, r.duration_ms
FROM batch_items i JOIN runs r ON r.id = i.run_id
WHERE i.batch_id = :batch_id AND i.index > :after AND r.execution_status = 'FINISHED'
ORDER BY i.index LIMIT :most;

-- name: has_batch
-- Whether an environment has this batch.
SELECT EXISTS (SELECT FROM batches WHERE id = :batch_id AND environment_id = :environment_id);

-- name: find_ended_run
-- What a run came to, as far as it is.
SELECT 0 AS index, r.id, r.execution_status, r.task_id, r.status, r.output, r.output_type, r.error,
    r.duration_ms
FROM runs r WHERE r.id = :run_id AND r.environment_id = :environment_id;
