-- name: find_due_runs
-- Runs whose delay or backoff is over. The timers are locked with them: a run that was rescheduled
-- while this was on its way is seen at its new instant.
SELECT r.id, e.type = 'DEVELOPMENT' AS is_development
FROM run_timers t JOIN runs r ON r.id = t.run_id JOIN environments e ON e.id = r.environment_id
WHERE t.due_at <= :now
ORDER BY t.due_at LIMIT :most FOR NO KEY UPDATE OF r, t SKIP LOCKED;

-- name: find_next_timer
-- When the next delay or backoff is over.
SELECT min(due_at) AS due_at FROM run_timers;

-- name: find_expired_runs
-- Queued runs whose time to live has passed. Their rows in the queue are locked with them: a run that
-- has started since they were seen, and is queued again, has another row and lives on.
SELECT r.id FROM queued_runs q JOIN runs r ON r.id = q.run_id
WHERE q.expires_at <= :now AND r.execution_status = 'QUEUED'
ORDER BY q.expires_at LIMIT :most FOR NO KEY UPDATE OF r, q SKIP LOCKED;

-- name: find_next_instant
-- The next instant at which anything happens by itself, if nothing else does before.
SELECT least(
    (SELECT min(due_at) FROM run_timers),
    (SELECT min(due_at) FROM waitpoints WHERE status = 'PENDING'),
    (SELECT min(expires_at) FROM queued_runs),
    (SELECT min(reopens_at) FROM queue_rates WHERE reopens_at < 'infinity'),
    (SELECT min(blocked_until) FROM subqueues WHERE blocked_until < 'infinity'),
    CASE WHEN :has_schedules::boolean THEN (SELECT min(due_at) FROM schedules) END
) AS due_at;
