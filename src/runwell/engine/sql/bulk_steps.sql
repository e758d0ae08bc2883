-- name: claim_bulk_action
-- A bulk action that nobody works on, for as long as a step may take.
UPDATE bulk_actions SET claimed_until = :claimed_until
WHERE id = (
    SELECT id FROM bulk_actions WHERE status = 'PENDING' AND claimed_until <= :now
    ORDER BY claimed_until LIMIT 1 FOR UPDATE SKIP LOCKED
)
RETURNING *;

-- name: release_bulk_action
-- The step is done: whoever comes next may go on.
UPDATE bulk_actions SET claimed_until = :now WHERE id = :id;

-- name: list_pending_items
-- Chosen runs for which it is still to be done.
SELECT run_id, new_run_id FROM bulk_action_items
WHERE bulk_action_id = :id AND status = 'PENDING' ORDER BY run_id DESC LIMIT :most;

-- name: insert_items
-- Runs are chosen.
INSERT INTO bulk_action_items (bulk_action_id, run_id, status, new_run_id)
SELECT :id, g.run_id, g.status, g.new_run_id
FROM unnest(:run_ids::text[], :statuses::text[], :new_run_ids::text[])
    AS g (run_id, status, new_run_id)
ON CONFLICT DO NOTHING;

-- name: note_chosen
-- Up to which run they are chosen, and for how many it is done already.
UPDATE bulk_actions SET after_id = :after_id, succeeded = succeeded + :succeeded,
    skipped = skipped + :skipped
WHERE id = :id;

-- name: end_items
-- It was tried for these runs; whoever says so first is counted.
WITH done AS (
    UPDATE bulk_action_items i SET status = g.status, error = g.error
    FROM unnest(:run_ids::text[], :statuses::text[], :errors::text[]) AS g (run_id, status, error)
    WHERE i.bulk_action_id = :id AND i.run_id = g.run_id AND i.status = 'PENDING'
    RETURNING i.status
)
UPDATE bulk_actions b SET
    succeeded = b.succeeded + (SELECT count(*) FROM done WHERE status = 'SUCCEEDED'),
    failed = b.failed + (SELECT count(*) FROM done WHERE status = 'FAILED')
WHERE b.id = :id;

-- name: complete_bulk_action
-- No run is left.
UPDATE bulk_actions SET status = 'COMPLETED', completed_at = :now
WHERE id = :id AND status = 'PENDING';

-- name: delete_old_bulk_actions
-- Bulk actions that were over long ago.
DELETE FROM bulk_actions WHERE id IN (
    SELECT id FROM bulk_actions WHERE completed_at < :before ORDER BY id LIMIT :most
);
