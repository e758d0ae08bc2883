-- name: find_empty_subqueues
-- Subqueues that are said to have something, and where nothing waits.
SELECT s.id FROM subqueues s
WHERE s.has_queued AND NOT EXISTS (SELECT FROM queued_runs q WHERE q.subqueue_id = s.id)
ORDER BY s.turn LIMIT :most;

-- name: delete_expired_keys
-- Idempotency keys past their lifetime.
DELETE FROM idempotency_keys WHERE (environment_id, task_id, key) IN (
    SELECT environment_id, task_id, key FROM idempotency_keys
    WHERE expires_at <= :now LIMIT :most FOR UPDATE SKIP LOCKED
);
