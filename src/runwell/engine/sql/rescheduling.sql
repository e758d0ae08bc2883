-- name: reschedule_run
-- A delayed run gets another instant. The caller holds its lock.
WITH moved AS (
    UPDATE runs r SET event = 'RESCHEDULE', delayed_until = :delayed_until, updated_at = :now,
        order_at = :delayed_until::timestamptz - make_interval(secs => r.priority_seconds)
    FROM run_transitions t
    WHERE r.id = :run_id AND t.from_status = r.execution_status AND t.event = 'RESCHEDULE'
    RETURNING r.id, r.delayed_until
)
UPDATE run_timers u SET due_at = m.delayed_until FROM moved m WHERE u.run_id = m.id;
