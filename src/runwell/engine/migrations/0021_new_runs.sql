-- New runs come in as rows of a type: one array of them costs less than one array for each column.

-- The columns of NewRun in engine/trigger_options.py, in their order.
CREATE TYPE new_run AS (
    run_id text, task_id text, version text, queue_name text, default_queue_name text,
    concurrency_key text, idempotency_key text, idempotency_key_expires_at timestamptz,
    delayed_until timestamptz, priority_seconds double precision, payload text, payload_type text,
    context text, metadata text, tags text, is_test boolean, max_attempts integer,
    max_duration integer, machine text, ttl text, ttl_seconds integer, parent_run_id text,
    is_awaited boolean, replay_of text, trace_context text
);

-- Idempotency keys for new runs, as far as they are free; returns the run that each key stands for then,
-- by its task and key. In one order everywhere, and each key once, also when it is there twice. A key that is
-- taken is written as it is, to be returned and to stay taken until we commit.
CREATE FUNCTION claim_idempotency_keys(
    of_environment_id bigint, new_runs new_run[], instant timestamptz
) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    runs_of_keys jsonb;
BEGIN
    WITH claimed AS (
        INSERT INTO idempotency_keys AS k (environment_id, task_id, key, run_id, expires_at)
        SELECT DISTINCT ON (g.task_id, g.idempotency_key)
            of_environment_id, g.task_id, g.idempotency_key, g.run_id, g.idempotency_key_expires_at
        FROM unnest(new_runs) WITH ORDINALITY AS g (
            run_id, task_id, version, queue_name, default_queue_name, concurrency_key,
            idempotency_key, idempotency_key_expires_at, delayed_until, priority_seconds, payload,
            payload_type, context, metadata, tags, is_test, max_attempts, max_duration, machine, ttl,
            ttl_seconds, parent_run_id, is_awaited, replay_of, trace_context, place
        )
        WHERE g.idempotency_key IS NOT NULL
        ORDER BY g.task_id, g.idempotency_key, g.place
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
