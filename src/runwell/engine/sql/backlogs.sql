-- name: estimate_all_queued
-- More runs than can wait in all queues together, by the size of the table on the disk.
SELECT pg_relation_size('queued_runs') / 80 AS most;

-- name: count_queued
-- How many runs of an environment wait in its queues, up to `most`.
SELECT count(*) FROM (
    SELECT FROM queues q
    JOIN subqueues s ON s.queue_id = q.id
    JOIN queued_runs w ON w.subqueue_id = s.id
    WHERE q.environment_id = :environment_id AND s.has_queued
    LIMIT :most
) counted;

-- name: is_known_run
-- Whether a trigger would find its run: by its request, or by its idempotency key.
SELECT EXISTS (SELECT FROM runs r WHERE r.id = :run_id)
    OR EXISTS (
        SELECT FROM trigger_requests t
        WHERE t.environment_id = :environment_id AND t.request_key = :request_key
    ) OR EXISTS (
        SELECT FROM idempotency_keys k WHERE k.environment_id = :environment_id
            AND k.task_id = :task_id AND k.key = :idempotency_key AND k.expires_at > :now
    );

-- name: is_known_batch
-- Whether a batch trigger would find its batch: by its request, or by its idempotency key.
SELECT EXISTS (
        SELECT FROM batches b
        WHERE b.environment_id = :environment_id AND b.request_key = :request_key
    ) OR EXISTS (
        SELECT FROM batches b WHERE b.environment_id = :environment_id
            AND b.idempotency_key = :idempotency_key AND b.key_expires_at > :now
    );
