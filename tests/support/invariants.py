"""What must hold between the tables at any time, as queries that find what breaks it."""

# Each query finds what must not be.
BROKEN = {
    "an environment counts other than what is leased": """
        SELECT c.environment_id, c.running FROM environment_concurrency c WHERE c.running <> (
            SELECT count(*) FROM runs r
            WHERE r.environment_id = c.environment_id AND r.lease_id IS NOT NULL
                AND r.released_slots < 1)""",
    "a subqueue counts other than what is leased": """
        SELECT s.id, s.running FROM subqueues s WHERE s.running <> (
            SELECT count(*) FROM runs r WHERE r.subqueue_id = s.id AND r.lease_id IS NOT NULL
                AND r.released_slots < 2)""",
    "a queued run isn't in its queue, or another one is": """
        SELECT r.id, r.execution_status FROM runs r FULL JOIN queued_runs q ON q.run_id = r.id
        WHERE (q.run_id IS NOT NULL) <> (r.execution_status = 'QUEUED')
            OR q.subqueue_id <> r.subqueue_id OR q.order_at <> r.order_at""",
    "runs wait where no dequeue looks": """
        SELECT s.id FROM subqueues s WHERE NOT s.has_queued
            AND EXISTS (SELECT FROM queued_runs q WHERE q.subqueue_id = s.id)""",
    "a subqueue is blocked by a rate limit that nobody looks at again": """
        SELECT s.id FROM subqueues s LEFT JOIN queue_rates a ON a.queue_id = s.queue_id
        WHERE s.blocked_until = 'infinity' AND s.has_queued AND NOT s.is_paused
            AND a.reopens_at IS NULL""",
    "a run that waits for an instant has no timer, or another one has": """
        SELECT r.id, r.execution_status FROM runs r FULL JOIN run_timers t ON t.run_id = r.id
        WHERE (t.run_id IS NOT NULL) <> (r.execution_status IN ('DELAYED', 'WAITING_TO_RETRY'))""",
    "the last snapshot differs from the run": """
        SELECT r.id, r.execution_status FROM runs r
        LEFT JOIN run_snapshots s ON s.id = r.snapshot_id
        WHERE (s.run_id, s.execution_status, s.status, s.event, s.attempt_number)
            IS DISTINCT FROM (r.id, r.execution_status, r.status, r.event, r.attempt_number)""",
    "a snapshot follows where the table has no way": """
        SELECT x.run_id, x.before, x.event FROM (
            SELECT s.*, coalesce(lag(s.execution_status) OVER w, '') AS before
            FROM run_snapshots s WINDOW w AS (PARTITION BY s.run_id ORDER BY s.id)
        ) x WHERE NOT EXISTS (
            SELECT FROM run_transitions t WHERE t.from_status = x.before AND t.event = x.event
                AND t.to_status = x.execution_status)""",
    "a run that no worker holds waits, or has given slots back": """
        SELECT r.id, r.released_slots FROM runs r WHERE r.lease_id IS NULL AND (
            r.released_slots <> 0 OR EXISTS (SELECT FROM run_waits w WHERE w.run_id = r.id)
            OR EXISTS (SELECT FROM resuming_runs z WHERE z.run_id = r.id))""",
    "a run waits for a slot and isn't in the list, or the other way around": """
        SELECT r.id, r.execution_status FROM runs r FULL JOIN resuming_runs z ON z.run_id = r.id
        WHERE (z.run_id IS NOT NULL) <> (r.execution_status = 'QUEUED_EXECUTING')""",
    "a run has ended and its waitpoint is open": """
        SELECT p.id FROM waitpoints p JOIN runs r ON r.id = p.run_id
        WHERE (p.status = 'COMPLETED') <> (r.execution_status = 'FINISHED')""",
    "a run is blocked though a wait of it is complete and nobody will look": """
        SELECT r.id FROM runs r
        WHERE r.execution_status = 'EXECUTING_WITH_WAITPOINTS'
            AND NOT EXISTS (SELECT FROM run_wakes k WHERE k.run_id = r.id)
            AND EXISTS (
                SELECT FROM run_waits w JOIN waitpoints p ON p.id = w.waitpoint_id
                WHERE w.run_id = r.id
                GROUP BY w.wait_id HAVING bool_and(p.status = 'COMPLETED'))""",
    "an attempt runs without a worker": """
        SELECT a.run_id, a.number FROM run_attempts a JOIN runs r ON r.id = a.run_id
        WHERE a.status = 'EXECUTING' AND (r.lease_id IS NULL OR a.number <> r.attempt_number)""",
}
