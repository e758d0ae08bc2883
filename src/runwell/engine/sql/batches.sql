-- name: free_expired_key
-- An idempotency key whose time is over no longer stands for its batch.
UPDATE batches SET idempotency_key = NULL, key_expires_at = NULL
WHERE environment_id = :environment_id AND idempotency_key = :idempotency_key
    AND key_expires_at <= :now;

-- name: insert_batch
-- A new batch; no row when its request or its idempotency key has one.
INSERT INTO batches (
    id, environment_id, run_count, request_key, idempotency_key, key_expires_at, created_at, sealed_at,
    parent_run_id, is_awaited
)
VALUES (
    :batch_id, :environment_id, :run_count, :request_key, :idempotency_key, :key_expires_at, :now,
    :sealed_at, :parent_run_id, :is_awaited
)
ON CONFLICT DO NOTHING
RETURNING id;

-- name: insert_items
-- The items of a batch, in their order.
INSERT INTO batch_items (batch_id, index, run_id, is_cached)
SELECT :batch_id, g.place - 1, g.run_id, g.is_cached
FROM unnest(:run_ids::text[], :is_cached::boolean[]) WITH ORDINALITY AS g (run_id, is_cached, place);

-- name: find_earlier_batch
-- The batch that a request or an idempotency key had already; that of the request goes first.
SELECT b.id, b.run_count, b.sealed_at,
    b.request_key IS NOT DISTINCT FROM :request_key AS is_same_request
FROM batches b
WHERE b.environment_id = :environment_id AND b.id IN (
    SELECT r.id FROM batches r
    WHERE r.environment_id = :environment_id AND r.request_key = :request_key
    UNION ALL
    SELECT k.id FROM batches k
    WHERE k.environment_id = :environment_id AND k.idempotency_key = :idempotency_key
)
ORDER BY 2 DESC LIMIT 1;

-- name: find_batch
-- A batch, whether all of its runs are there and have ended, and the items that can't be runs.
SELECT b.id, b.run_count, b.idempotency_key, b.created_at, b.sealed_at,
    (
        SELECT jsonb_agg(jsonb_build_object(
            'index', f.index, 'task_id', f.task_id, 'message', f.message, 'status', f.status
        ) ORDER BY f.index)
        FROM batch_failures f WHERE f.batch_id = b.id
    ) AS failures,
    b.sealed_at IS NOT NULL AND NOT EXISTS (
        SELECT FROM runs r WHERE r.batch_id = b.id AND r.execution_status <> 'FINISHED'
    ) AND NOT EXISTS (
        SELECT FROM batch_items i JOIN runs r ON r.id = i.run_id
        WHERE i.batch_id = b.id AND i.is_cached AND r.execution_status <> 'FINISHED'
    ) AS is_complete
FROM batches b
WHERE b.id = :batch_id AND b.environment_id = :environment_id;

-- name: list_items
-- The runs of a batch's items, in their order.
SELECT i.run_id, i.is_cached, r.task_id, r.idempotency_key, r.finished_at
FROM batch_items i JOIN runs r ON r.id = i.run_id
WHERE i.batch_id = :batch_id
ORDER BY i.index;
