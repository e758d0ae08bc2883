-- Rate limits: so many starts of a queue, or of each of its keys, in any window of time.

-- A log of starts by twentieths of the window: how many there were, and when the last of them was. All
-- of them count until that one is out of the window, so that a log says too much rather than too little.
CREATE TYPE rate_start AS (started_at timestamptz, runs integer);

-- How many more may start now.
CREATE FUNCTION rate_room(
    most integer, length interval, starts rate_start[], instant timestamptz
) RETURNS integer LANGUAGE sql IMMUTABLE AS $$
    SELECT greatest(0, most - coalesce(sum(s.runs), 0))::integer
    FROM unnest(starts) s WHERE s.started_at > instant - length
$$;

-- When one more may start: now, or when enough of those before it are out of the window.
CREATE FUNCTION rate_free_at(
    most integer, length interval, starts rate_start[], instant timestamptz
) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN coalesce(sum(x.runs), 0) < most THEN instant
        ELSE min(x.started_at) FILTER (WHERE x.later < most) + length END
    FROM (
        SELECT s.started_at, s.runs, sum(s.runs) OVER (ORDER BY s.started_at DESC) - s.runs AS later
        FROM unnest(starts) s WHERE s.started_at > instant - length
    ) x
$$;

-- The log with so many more starts. A clock that goes back, or another server's that is behind, adds to
-- the last twentieth.
CREATE FUNCTION rate_started(
    length interval, starts rate_start[], instant timestamptz, number integer
) RETURNS rate_start[] LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(array_agg((x.started_at, x.runs)::rate_start ORDER BY x.started_at), '{}')
    FROM (
        SELECT max(u.started_at) AS started_at, sum(u.runs)::integer AS runs
        FROM (
            SELECT s.started_at, s.runs FROM unnest(starts) s
            WHERE s.started_at > instant - length
            UNION ALL
            SELECT greatest(instant, max(s.started_at)), number FROM unnest(starts) s
        ) u
        WHERE u.runs > 0
        GROUP BY floor(extract(epoch FROM u.started_at) / (extract(epoch FROM length) / 20))
    ) x
$$;

ALTER TABLE queues
    ADD COLUMN rate_limit integer CHECK (rate_limit > 0),
    ADD COLUMN rate_window interval CHECK (rate_window > '0'),
    ADD COLUMN key_rate_limit integer CHECK (key_rate_limit > 0),
    ADD COLUMN key_rate_window interval CHECK (key_rate_window > '0'),
    ADD CHECK ((rate_limit IS NULL) = (rate_window IS NULL)),
    ADD CHECK ((key_rate_limit IS NULL) = (key_rate_window IS NULL));

-- The starts of queues that have a rate limit over all their keys. Changed by dequeues, which hold the
-- environment's counter then, and by the loop that opens subqueues again.
CREATE TABLE queue_rates (
    queue_id bigint PRIMARY KEY REFERENCES queues ON DELETE CASCADE,
    rate_limit integer NOT NULL,
    rate_window interval NOT NULL,
    starts rate_start[] NOT NULL DEFAULT '{}',
    -- When subqueues that are blocked by it are to be opened; null when there are none.
    reopens_at timestamptz
) WITH (fillfactor = 50);
CREATE INDEX queue_rates_due ON queue_rates (reopens_at) WHERE reopens_at IS NOT NULL;

ALTER TABLE subqueues
    -- Copies of the queue's settings, and the starts of this key.
    ADD COLUMN has_queue_rate boolean NOT NULL DEFAULT false,
    ADD COLUMN key_rate_limit integer,
    ADD COLUMN key_rate_window interval,
    ADD COLUMN starts rate_start[] NOT NULL DEFAULT '{}',
    -- No dequeue looks at it before then. 'infinity': before its queue may start more.
    ADD COLUMN blocked_until timestamptz;

DROP INDEX subqueues_ready;
CREATE INDEX subqueues_ready ON subqueues (environment_id, turn, id)
    WHERE has_queued AND NOT is_paused AND running < concurrency_limit AND blocked_until IS NULL;
CREATE INDEX subqueues_blocked ON subqueues (blocked_until) WHERE blocked_until IS NOT NULL;
CREATE INDEX subqueues_blocked_by_queue ON subqueues (queue_id, turn, id)
    WHERE blocked_until = 'infinity' AND has_queued AND NOT is_paused;

-- Whoever puts the first run into a subqueue has it looked at: the loop opens only those that have one.
CREATE FUNCTION open_subqueue() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.blocked_until := NULL;
    RETURN NEW;
END
$$;
CREATE TRIGGER open_subqueue BEFORE UPDATE OF has_queued ON subqueues
    FOR EACH ROW WHEN (NEW.has_queued AND NOT OLD.has_queued AND OLD.blocked_until IS NOT NULL)
    EXECUTE FUNCTION open_subqueue();
