-- name: find_obstacles
-- All that may hold a run that isn't executing: its own state, its queue's, its environment's, the
-- workers. What is counted is counted up to a number.
SELECT r.execution_status, r.released_slots, r.task_id, r.concurrency_key, r.attempt_number,
    r.event_at, r.delayed_until, r.subqueue_id, i.due_at, l.name AS worker_name,
    e.slug AS environment, c.is_paused AS is_environment_paused,
    c.concurrency_limit AS environment_limit, c.running AS environment_running,
    -- Those that go on after a wait have the first claim on a slot.
    (SELECT count(*) FROM (
        SELECT FROM resuming_runs z WHERE z.environment_id = r.environment_id LIMIT :most_counted
    ) z)::integer AS resuming,
    q.name AS queue, q.is_paused AS is_queue_paused,
    s.concurrency_limit AS subqueue_limit, s.running AS subqueue_running,
    q.rate_limit, q.rate_window, q.key_rate_limit, q.key_rate_window,
    CASE WHEN a.queue_id IS NOT NULL
        THEN rate_free_at(a.rate_limit, a.rate_window, a.starts, :now) END AS queue_free_at,
    CASE WHEN s.key_rate_limit IS NOT NULL
        THEN rate_free_at(s.key_rate_limit, s.key_rate_window, s.starts, :now) END AS key_free_at,
    current.version AS current_version, wanted.version AS wanted_version, o.ahead,
    nullif(k.region, '') AS region, w.workers, w.in_region, w.able, w.capacity, w.held
FROM runs r
JOIN environments e ON e.id = r.environment_id
JOIN environment_concurrency c ON c.environment_id = r.environment_id
JOIN queues q ON q.id = r.queue_id
LEFT JOIN subqueues s ON s.id = r.subqueue_id
LEFT JOIN queue_rates a ON a.queue_id = q.id
LEFT JOIN run_timers i ON i.run_id = r.id
LEFT JOIN workers l ON l.id = r.worker_id
LEFT JOIN queued_runs k ON k.run_id = r.id
LEFT JOIN background_workers current ON current.id = e.current_background_worker_id
LEFT JOIN background_workers wanted
    ON wanted.id = coalesce(nullif(k.background_worker_id, 0), e.current_background_worker_id)
CROSS JOIN LATERAL (
    SELECT count(*)::integer AS ahead FROM (
        SELECT FROM queued_runs x
        WHERE k.run_id IS NOT NULL AND x.subqueue_id = r.subqueue_id
            AND x.background_worker_id
                IN (0, e.current_background_worker_id, k.background_worker_id)
            AND x.region IN ('', k.region)
            AND (x.order_at, x.run_id) < (k.order_at, k.run_id)
        LIMIT :most_counted
    ) counted
) o
CROSS JOIN LATERAL (
    SELECT count(*)::integer AS workers,
        count(*) FILTER (WHERE v.is_in_region)::integer AS in_region,
        count(*) FILTER (WHERE v.is_able)::integer AS able,
        coalesce(sum(v.capacity) FILTER (WHERE v.is_able), 0)::integer AS capacity,
        coalesce(sum(v.held) FILTER (WHERE v.is_able), 0)::integer AS held
    FROM (
        SELECT y.capacity,
            k.region IN ('', y.region) AS is_in_region,
            coalesce(k.region, '') IN ('', y.region) AND (
                y.background_worker_ids IS NULL OR wanted.public_id = ANY(y.background_worker_ids)
            ) AS is_able,
            (SELECT count(*) FROM (
                SELECT FROM runs z WHERE z.worker_id = y.id LIMIT y.capacity
            ) z) AS held
        FROM workers y
        WHERE y.environment_id = r.environment_id AND y.lease_expires_at > :now LIMIT 1000
    ) v
) w
WHERE r.id = :run_id AND r.environment_id = :environment_id;

-- name: list_slot_holders
-- Some of the runs that have the slots of a subqueue, or without one of the environment.
SELECT r.id FROM workers w JOIN runs r ON r.worker_id = w.id
WHERE w.environment_id = :environment_id AND r.id <> :run_id AND (
    :subqueue_id::bigint IS NULL AND r.released_slots < 1
    OR r.subqueue_id = :subqueue_id AND r.released_slots < 2
)
LIMIT :most;

-- name: list_open_waits
-- What a run waits for, that which it waits for longest first.
SELECT p.id, p.type, p.run_id, p.due_at, w.created_at
FROM run_waits w JOIN waitpoints p ON p.id = w.waitpoint_id
WHERE w.run_id = :run_id AND p.status = 'PENDING'
ORDER BY w.created_at, w.wait_id, w.position LIMIT :most;
