-- name: cancel_runs
-- Cancels: what no worker holds ends now, what one holds ends when the worker says so. Runs that may
-- have triggered others are noted. The caller holds the locks.
WITH canceled AS (
    UPDATE runs r SET event = 'CANCEL', error = :error::jsonb, finished_at = :now, updated_at = :now
    FROM run_transitions t
    WHERE r.id = ANY(:run_ids::text[]) AND t.from_status = r.execution_status AND t.event = 'CANCEL'
    RETURNING r.id, r.attempt_number, r.worker_id
), unclaimed AS (
    -- One that was about to go on claims no slot any more.
    DELETE FROM resuming_runs z USING canceled c WHERE z.run_id = c.id
), noted AS (
    INSERT INTO canceled_parents (run_id, due_at)
    SELECT id, :now FROM canceled WHERE attempt_number > 0
    ON CONFLICT (run_id) DO NOTHING
)
SELECT c.id, w.public_id AS worker_id FROM canceled c LEFT JOIN workers w ON w.id = c.worker_id;

-- name: claim_notes
-- Canceled runs whose children are to be looked at, and whether they have ended themselves.
SELECT p.run_id, p.after_id, p.is_last_look, r.execution_status = 'FINISHED' AS has_ended
FROM canceled_parents p JOIN runs r ON r.id = p.run_id
WHERE p.due_at <= :now
ORDER BY p.due_at LIMIT :most FOR UPDATE OF p SKIP LOCKED;

-- name: find_children
-- The next children of each run that haven't ended, in the order of their ids.
SELECT g.run_id, (
    SELECT array_agg(c.id) FROM (
        SELECT r.id FROM runs r
        WHERE r.parent_run_id = g.run_id AND r.id > g.after_id
            AND r.execution_status NOT IN ('FINISHED', 'PENDING_CANCEL')
        ORDER BY r.id LIMIT :most
    ) c
) AS child_ids
FROM unnest(:run_ids::text[], :after::text[]) AS g (run_id, after_id);

-- name: update_notes
-- Where the next step goes on, and when.
UPDATE canceled_parents p
SET after_id = g.after_id, due_at = g.due_at, is_last_look = g.is_last
FROM unnest(:run_ids::text[], :after::text[], :due_at::timestamptz[], :are_last::boolean[])
    AS g (run_id, after_id, due_at, is_last)
WHERE p.run_id = g.run_id;

-- name: delete_notes
-- Runs of which no child is left.
DELETE FROM canceled_parents WHERE run_id = ANY(:run_ids::text[]);
