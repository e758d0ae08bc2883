-- name: set_queue_rates
-- Change a queue's rate limits; null removes one. No row when they are so already. The row stays locked,
-- so that new subqueues wait for it.
UPDATE queues SET rate_limit = :rate_limit,
    rate_window = make_interval(secs => :rate_window_seconds::integer),
    key_rate_limit = :key_rate_limit,
    key_rate_window = make_interval(secs => :key_rate_window_seconds::integer)
WHERE environment_id = :environment_id AND name = :name AND (
    (rate_limit, rate_window) IS DISTINCT FROM
        (:rate_limit, make_interval(secs => :rate_window_seconds))
    OR (key_rate_limit, key_rate_window) IS DISTINCT FROM
        (:key_rate_limit, make_interval(secs => :key_rate_window_seconds))
)
RETURNING id;

-- name: copy_queue_rate
-- Where the starts of a queue with a rate limit are kept; those so far count on.
INSERT INTO queue_rates (queue_id, rate_limit, rate_window)
SELECT id, rate_limit, rate_window FROM queues WHERE id = :queue_id AND rate_limit IS NOT NULL
ON CONFLICT (queue_id) DO UPDATE
SET rate_limit = excluded.rate_limit, rate_window = excluded.rate_window, reopens_at = NULL;

-- name: delete_queue_rate
-- A queue has no rate limit over all its keys any more.
DELETE FROM queue_rates r USING queues q
WHERE r.queue_id = :queue_id AND q.id = r.queue_id AND q.rate_limit IS NULL;

-- name: open_due_subqueues
-- Let dequeues look again at subqueues that a rate limit has room for: those whose own window has passed,
-- and of each queue as many as it may start, those served longest ago first. What is not due is not read.
WITH due AS MATERIALIZED (
    SELECT id FROM subqueues WHERE blocked_until <= :now
    ORDER BY blocked_until LIMIT :most FOR NO KEY UPDATE SKIP LOCKED
), due_rates AS MATERIALIZED (
    SELECT a.*, rate_room(a.rate_limit, a.rate_window, a.starts, :now) AS room
    FROM queue_rates a WHERE a.reopens_at <= :now
    ORDER BY a.reopens_at LIMIT :most FOR NO KEY UPDATE SKIP LOCKED
), chosen AS MATERIALIZED (
    SELECT c.id, c.queue_id FROM due_rates a CROSS JOIN LATERAL (
        SELECT s.id, s.queue_id FROM subqueues s
        WHERE s.queue_id = a.queue_id AND s.blocked_until = 'infinity'
            AND s.has_queued AND NOT s.is_paused
        ORDER BY s.turn, s.id LIMIT least(a.room, :most) FOR NO KEY UPDATE SKIP LOCKED
    ) c
), opened AS (
    UPDATE subqueues s SET blocked_until = NULL
    WHERE s.id IN (SELECT id FROM due UNION ALL SELECT id FROM chosen)
    RETURNING s.environment_id
), left_over AS (
    -- Of each, whether it blocks more than were chosen.
    SELECT d.*, d.chosen < (
        SELECT count(*) FROM (
            SELECT FROM subqueues s
            WHERE s.queue_id = d.queue_id AND s.blocked_until = 'infinity'
                AND s.has_queued AND NOT s.is_paused
            LIMIT d.chosen + 1
        ) blocked
    ) AS has_more
    FROM (
        SELECT a.*, (SELECT count(*) FROM chosen c WHERE c.queue_id = a.queue_id) AS chosen
        FROM due_rates a
    ) d
), kept AS (
    -- Those that were opened may be at their limit, and leave room: a second later others are opened.
    UPDATE queue_rates a SET reopens_at = CASE
        -- So many at once are left to dequeues first: what these don't start has to be blocked again.
        WHEN d.has_more AND d.chosen >= :most THEN :now::timestamptz + interval '0.2 seconds'
        WHEN d.has_more AND d.room > 0 THEN :now::timestamptz + interval '1 second'
        WHEN d.has_more THEN rate_free_at(d.rate_limit, d.rate_window, d.starts, :now)
    END
    FROM left_over d WHERE a.queue_id = d.queue_id
)
SELECT environment_id, count(*) AS opened FROM opened GROUP BY environment_id;
