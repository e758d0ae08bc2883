-- name: count_queues
-- How many queues an environment has.
SELECT count(*) FROM queues WHERE environment_id = :environment_id;

-- name: list_queues
-- A page of an environment's queues by their names, with what runs and what waits in each. What waits is
-- counted up to a number, by an index: a backlog of millions costs no more than that.
SELECT q.*, u.running, w.queued
FROM (
    SELECT * FROM queues WHERE environment_id = :environment_id
    ORDER BY name LIMIT :most OFFSET :skipped
) q
CROSS JOIN LATERAL (
    SELECT coalesce(sum(s.running), 0)::integer AS running FROM subqueues s
    WHERE s.queue_id = q.id AND (s.has_queued OR s.running > 0)
) u
CROSS JOIN LATERAL (
    SELECT count(*)::integer AS queued FROM (
        SELECT FROM subqueues s JOIN queued_runs r ON r.subqueue_id = s.id
        WHERE s.queue_id = q.id AND s.has_queued AND (s.has_queued OR s.running > 0)
        LIMIT :most_counted
    ) counted
) w
ORDER BY q.name;

-- name: find_queue
-- One queue by its id or its name, with what runs and what waits in it.
SELECT q.*, u.running, w.queued
FROM queues q
CROSS JOIN LATERAL (
    SELECT coalesce(sum(s.running), 0)::integer AS running FROM subqueues s
    WHERE s.queue_id = q.id AND (s.has_queued OR s.running > 0)
) u
CROSS JOIN LATERAL (
    SELECT count(*)::integer AS queued FROM (
        SELECT FROM subqueues s JOIN queued_runs r ON r.subqueue_id = s.id
        WHERE s.queue_id = q.id AND s.has_queued AND (s.has_queued OR s.running > 0)
        LIMIT :most_counted
    ) counted
) w
WHERE q.id = (
    SELECT id FROM queues WHERE environment_id = :environment_id AND public_id = :public_id::text
    UNION ALL
    SELECT id FROM queues WHERE environment_id = :environment_id AND name = :name::text
    LIMIT 1
);

-- name: set_paused
-- Pause a queue or let it go on; no row when it is as it should be.
UPDATE queues SET is_paused = :is_paused WHERE id = :queue_id AND is_paused <> :is_paused
RETURNING id;

-- name: override_limit
-- Put another limit over that of the code.
UPDATE queues SET concurrency_limit_override = :concurrency_limit, overridden_at = :now
WHERE id = :queue_id
RETURNING id;

-- name: reset_limit
-- Let the code's limit hold again; no row when it does.
UPDATE queues SET concurrency_limit_override = NULL, overridden_at = NULL
WHERE id = :queue_id AND overridden_at IS NOT NULL
RETURNING id;

-- name: get_environment_limit
-- How much an environment may run at once; the row keeps that value until the end of the transaction.
SELECT concurrency_limit FROM environments WHERE id = :environment_id FOR SHARE;
