-- name: lock_pending_triggers
-- What committed transactions have triggered, in order. Another server's are passed over.
SELECT p.id, p.environment_id, p.created_at, p.batch_id, p.items::text AS items
FROM pending_triggers p
WHERE p.problem IS NULL AND p.id >= :from_id
ORDER BY p.id LIMIT :most FOR NO KEY UPDATE SKIP LOCKED;

-- name: is_pending
-- Whether a run is among the last that were triggered in an environment and are to be made.
SELECT EXISTS (
    SELECT FROM (
        SELECT p.environment_id, p.answers FROM pending_triggers p
        WHERE p.problem IS NULL ORDER BY p.id DESC LIMIT 1000
    ) p
    WHERE p.environment_id = :environment_id
        AND p.answers @> jsonb_build_array(jsonb_build_object('id', :run_id::text))
);

-- name: delete_pending_triggers
-- They are runs now.
DELETE FROM pending_triggers WHERE id = ANY(:ids::bigint[]);

-- name: seal_pending_batch
-- A batch that a transaction has triggered gets its runs.
WITH item AS (
    INSERT INTO batch_items (batch_id, index, run_id, is_cached)
    SELECT :batch_id, g.place - 1, g.run_id, g.is_cached
    FROM unnest(:run_ids::text[], :is_cached::boolean[])
        WITH ORDINALITY AS g (run_id, is_cached, place)
)
UPDATE batches SET sealed_at = :now WHERE id = :batch_id;

-- name: refuse_pending_trigger
-- What can't be a run stays for people to look at; of a batch none can.
WITH refused AS (
    UPDATE pending_triggers SET problem = :problem WHERE id = :id AND problem IS NULL
    RETURNING batch_id, items
), failure AS (
    INSERT INTO batch_failures (batch_id, index, task_id, status, message)
    SELECT r.batch_id, g.place - 1, g.item ->> 'task', :status, :problem
    FROM refused r, json_array_elements(r.items) WITH ORDINALITY AS g (item, place)
    WHERE r.batch_id IS NOT NULL
)
UPDATE batches SET sealed_at = :now WHERE id IN (SELECT batch_id FROM refused);

-- name: delete_refused_triggers
-- Nobody has looked at these for long.
DELETE FROM pending_triggers WHERE id IN (
    SELECT id FROM pending_triggers WHERE problem IS NOT NULL AND created_at < :before
    ORDER BY created_at LIMIT :most FOR UPDATE SKIP LOCKED
);
