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

-- name: delete_old_waitpoints
-- Dates that came a day ago, and tokens completed a month ago, that no run has yet to hear of.
DELETE FROM waitpoints WHERE id IN (
    SELECT p.id FROM waitpoints p
    WHERE p.type <> 'RUN' AND p.completed_at < :now::timestamptz
            - CASE p.type WHEN 'MANUAL' THEN interval '30 days' ELSE interval '1 day' END
        AND NOT EXISTS (SELECT FROM run_waits w WHERE w.waitpoint_id = p.id)
    LIMIT :most FOR UPDATE SKIP LOCKED
);

-- name: delete_old_requests
-- What is remembered of requests, when nobody asks for their answer any more.
DELETE FROM trigger_requests WHERE (environment_id, request_key) IN (
    SELECT environment_id, request_key FROM trigger_requests
    WHERE created_at < :before LIMIT :most FOR UPDATE SKIP LOCKED
);
