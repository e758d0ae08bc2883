-- name: is_going_on
-- Whether an environment has this run, and it hasn't ended.
SELECT EXISTS (
    SELECT FROM runs WHERE id = :run_id AND environment_id = :environment_id
        AND execution_status <> 'FINISHED'
);

-- name: lock_batch
-- A batch whose items come in: one stream at a time adds to it.
SELECT b.id, b.run_count, b.sealed_at, b.parent_run_id, b.is_awaited FROM batches b
WHERE b.id = :batch_id AND b.environment_id = :environment_id FOR NO KEY UPDATE;

-- name: list_known_indexes
-- Which of these items a batch has already, as runs or as what can't be one.
SELECT i.index FROM batch_items i
WHERE i.batch_id = :batch_id AND i.index = ANY(:indexes::integer[])
UNION ALL
SELECT f.index FROM batch_failures f
WHERE f.batch_id = :batch_id AND f.index = ANY(:indexes::integer[]);

-- name: add_items
-- Items of a batch with their runs.
INSERT INTO batch_items (batch_id, index, run_id, is_cached)
SELECT :batch_id, g.index, g.run_id, g.is_cached
FROM unnest(:indexes::integer[], :run_ids::text[], :is_cached::boolean[])
    AS g (index, run_id, is_cached);

-- name: add_failures
-- Items of a batch that can't be runs, and why.
INSERT INTO batch_failures (batch_id, index, task_id, status, message)
SELECT :batch_id, g.index, g.task_id, g.status, g.message
FROM unnest(:indexes::integer[], :task_ids::text[], :statuses::integer[], :messages::text[])
    AS g (index, task_id, status, message);

-- name: count_items
-- How many items a batch has.
SELECT (SELECT count(*) FROM batch_items i WHERE i.batch_id = :batch_id)
    + (SELECT count(*) FROM batch_failures f WHERE f.batch_id = :batch_id);

-- name: seal_batch
-- A batch has all of its items.
UPDATE batches SET sealed_at = :now WHERE id = :batch_id AND sealed_at IS NULL;
