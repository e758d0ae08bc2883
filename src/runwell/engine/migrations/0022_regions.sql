-- Regions: workers say where they are, and a run that is for a region goes to a worker there.

ALTER TABLE workers ADD COLUMN region text COLLATE "C";

-- The regions that a worker of an environment has ever declared. A name that isn't here is no region: a run
-- that has it goes to any worker.
CREATE TABLE regions (
    environment_id bigint NOT NULL REFERENCES environments ON DELETE CASCADE,
    name text COLLATE "C" NOT NULL CHECK (name <> ''),
    PRIMARY KEY (environment_id, name)
);

ALTER TABLE runs ADD COLUMN region text COLLATE "C";

-- Each region by itself in the index, so that a dequeue passes over no run that isn't for its worker. Empty: any.
ALTER TABLE queued_runs ADD COLUMN region text COLLATE "C" NOT NULL DEFAULT '';
DROP INDEX queued_runs_in_order;
CREATE INDEX queued_runs_in_order ON queued_runs
    (subqueue_id, background_worker_id, region, order_at, run_id);

ALTER TYPE new_run ADD ATTRIBUTE region text;

-- By which region a run waits in its queue: its own, when it is one.
CREATE FUNCTION queued_region(of_environment_id bigint, region text) RETURNS text
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF region IS NULL THEN
        RETURN '';
    END IF;
    RETURN coalesce((
        SELECT x.name FROM regions x
        WHERE x.environment_id = of_environment_id AND x.name = queued_region.region
    ), '');
END
$$;

-- The same as before, with the attributes by their own names: there may be more of them later.
CREATE OR REPLACE FUNCTION claim_idempotency_keys(
    of_environment_id bigint, new_runs new_run[], instant timestamptz
) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    runs_of_keys jsonb;
BEGIN
    WITH claimed AS (
        INSERT INTO idempotency_keys AS k (environment_id, task_id, key, run_id, expires_at)
        SELECT DISTINCT ON (g.task_id, g.idempotency_key)
            of_environment_id, g.task_id, g.idempotency_key, g.run_id, g.idempotency_key_expires_at
        FROM unnest(new_runs) WITH ORDINALITY AS g
        WHERE g.idempotency_key IS NOT NULL
        ORDER BY g.task_id, g.idempotency_key, g.ordinality
        ON CONFLICT (environment_id, task_id, key) DO UPDATE SET (run_id, expires_at) = (
            SELECT CASE WHEN f.is_free THEN excluded.run_id ELSE k.run_id END,
                CASE WHEN f.is_free THEN excluded.expires_at ELSE k.expires_at END
            FROM (
                -- A run that failed gives its key up.
                SELECT k.expires_at <= instant OR EXISTS (
                    SELECT FROM runs r
                    WHERE r.environment_id = k.environment_id AND r.id = k.run_id
                        AND r.execution_status = 'FINISHED'
                        AND r.status NOT IN ('COMPLETED', 'CANCELED')
                ) AS is_free
            ) f
        )
        RETURNING task_id, key, run_id
    )
    SELECT jsonb_object_agg(c.task_id || chr(31) || c.key, c.run_id) INTO runs_of_keys
    FROM claimed c;
    RETURN runs_of_keys;
END
$$;
