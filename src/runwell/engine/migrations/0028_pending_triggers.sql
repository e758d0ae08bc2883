-- Triggers of applications that share the database: what a committed transaction wants to be a run.
-- See engine/adr/0007-triggers-in-other-transactions.md.

CREATE TABLE pending_triggers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    environment_id bigint NOT NULL,
    created_at timestamptz NOT NULL,
    -- The batch that its items are of; it is there already, and is sealed with them.
    batch_id text COLLATE "C",
    -- [{"id": "run_...", "task": "...", "body": {"payload": "...", "options": {...}}}, ...]
    items json NOT NULL,
    -- What the trigger was answered, item by item: [{"id": "run_...", "isCached": false, ...}, ...]
    answers jsonb NOT NULL,
    -- Why it can't be a run; looked at by people only.
    problem text
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
CREATE INDEX pending_triggers_open ON pending_triggers (id) WHERE problem IS NULL;
CREATE INDEX pending_triggers_of_batches ON pending_triggers (batch_id) WHERE batch_id IS NOT NULL;
CREATE INDEX pending_triggers_refused ON pending_triggers (created_at) WHERE problem IS NOT NULL;

-- Trigger runs in the transaction of whoever calls it. Returns a JSON text: a status and a body as the
-- HTTP API would have answered. A refusal is no error, so that it leaves the transaction as it is.
CREATE FUNCTION runwell_trigger(key_hash text, request text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    instant timestamptz := clock_timestamp();
    given json := request::json;
    batch json := nullif(given ->> 'batch', '')::json;
    environment record;
    refused text;
    earlier text;
    claimed jsonb;
    answered jsonb;
BEGIN
    SELECT e.id, e.public_id, e.slug, e.current_background_worker_id INTO environment
    FROM api_keys k JOIN environments e ON e.id = k.environment_id
    WHERE k.secret_hash = key_hash AND (k.expires_at IS NULL OR k.expires_at > instant);
    IF NOT FOUND THEN
        RETURN json_build_object('status', 401, 'body', json_build_object('error',
            'no environment of this database has this secret key: is it the key of the server that '
            'uses the database? `runwell env` prints it'
        ));
    END IF;

    -- What the insert of the runs would find missing; nobody would hear of it then.
    SELECT CASE WHEN batch IS NULL THEN '' ELSE 'items[' || i.place - 1 || '].' END
        || 'options.lockToVersion: ' || CASE
            WHEN b.id IS NULL THEN 'there is no version ' || left(i.version, 64)
                || ' in the environment ' || environment.slug
            ELSE 'the version ' || left(i.version, 64) || ' has no task ' || i.task_id
        END
    INTO refused
    FROM (
        SELECT g.place, g.item ->> 'task' AS task_id,
            g.item -> 'body' -> 'options' ->> 'lockToVersion' AS version
        FROM json_array_elements(given -> 'items') WITH ORDINALITY AS g (item, place)
    ) i
    LEFT JOIN background_workers b
        ON b.environment_id = environment.id AND b.version = i.version
    LEFT JOIN background_worker_tasks t
        ON t.background_worker_id = b.id AND t.task_id = i.task_id
    WHERE i.version IS NOT NULL AND t.task_id IS NULL
    ORDER BY i.place LIMIT 1;
    IF FOUND THEN
        RETURN json_build_object('status', 422, 'body', json_build_object('error', refused));
    END IF;

    IF batch IS NOT NULL THEN
        -- As it is done with a batch that comes by HTTP: a key whose time is over is free.
        UPDATE batches SET idempotency_key = NULL, key_expires_at = NULL
        WHERE environment_id = environment.id AND idempotency_key = batch ->> 'key'
            AND key_expires_at <= instant;
        INSERT INTO batches (
            id, environment_id, run_count, idempotency_key, key_expires_at, created_at
        ) VALUES (
            batch ->> 'id', environment.id, json_array_length(given -> 'items'), batch ->> 'key',
            CASE WHEN batch ->> 'key' IS NOT NULL
                THEN instant + make_interval(secs => (batch ->> 'keySeconds')::float8) END,
            instant
        ) ON CONFLICT (environment_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING;
        IF NOT FOUND THEN
            SELECT b.id INTO earlier FROM batches b
            WHERE b.environment_id = environment.id AND b.idempotency_key = batch ->> 'key';
            SELECT coalesce((
                SELECT jsonb_agg(jsonb_build_object(
                    'id', i.run_id, 'taskIdentifier', r.task_id, 'isCached', i.is_cached,
                    'idempotencyKey', r.idempotency_key
                ) ORDER BY i.index)
                FROM batch_items i JOIN runs r ON r.id = i.run_id WHERE i.batch_id = earlier
            ), (SELECT p.answers FROM pending_triggers p WHERE p.batch_id = earlier), '[]')
            INTO answered;
            RETURN json_build_object('status', 202, 'sub', environment.public_id, 'body',
                json_build_object(
                    'id', earlier, 'isCached', true, 'runCount', jsonb_array_length(answered),
                    'idempotencyKey', batch ->> 'key', 'runs', answered
                ));
        END IF;
    END IF;

    -- The run has its key from here on, and the transaction that commits first gets it: see
    -- claim_idempotency_keys. In one order, so that two of them don't wait for each other.
    WITH item AS (
        SELECT g.place, g.item ->> 'id' AS run_id, g.item ->> 'task' AS task_id,
            g.item -> 'body' -> 'options' ->> 'idempotencyKey' AS key,
            (g.item ->> 'keySeconds')::float8 AS key_seconds
        FROM json_array_elements(given -> 'items') WITH ORDINALITY AS g (item, place)
    ), claim AS (
        INSERT INTO idempotency_keys AS k (environment_id, task_id, key, run_id, expires_at)
        SELECT DISTINCT ON (i.task_id, i.key) environment.id, i.task_id, i.key, i.run_id,
            instant + make_interval(secs => i.key_seconds)
        FROM item i WHERE i.key IS NOT NULL
        ORDER BY i.task_id, i.key, i.place
        ON CONFLICT (environment_id, task_id, key) DO UPDATE SET (run_id, expires_at) = (
            SELECT CASE WHEN f.is_free THEN excluded.run_id ELSE k.run_id END,
                CASE WHEN f.is_free THEN excluded.expires_at ELSE k.expires_at END
            FROM (
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
    SELECT jsonb_object_agg(c.task_id || chr(31) || c.key, c.run_id) INTO claimed FROM claim c;

    SELECT jsonb_agg(jsonb_build_object(
        'id', i.run_id, 'taskIdentifier', i.task_id, 'isCached', i.run_id <> i.own_id,
        'idempotencyKey', i.key
    ) ORDER BY i.place) INTO answered
    FROM (
        SELECT g.place, g.item ->> 'task' AS task_id, g.item ->> 'id' AS own_id, k.key,
            coalesce(claimed ->> ((g.item ->> 'task') || chr(31) || k.key), g.item ->> 'id') AS run_id
        FROM json_array_elements(given -> 'items') WITH ORDINALITY AS g (item, place)
        CROSS JOIN LATERAL (SELECT g.item -> 'body' -> 'options' ->> 'idempotencyKey') AS k (key)
    ) i;

    IF batch IS NOT NULL OR NOT (answered -> 0 ->> 'isCached')::boolean THEN
        -- Uploaded payloads stay until the run refers to them, also when no server runs for some days.
        UPDATE packets p SET expires_at = instant + interval '7 days'
        FROM json_array_elements(given -> 'items') AS g (item)
        WHERE p.environment_id = environment.id AND p.path = g.item -> 'body' ->> 'payload'
            AND p.expires_at < instant + interval '7 days'
            AND g.item -> 'body' -> 'options' ->> 'payloadType' = 'application/store';
        INSERT INTO pending_triggers (environment_id, created_at, batch_id, items, answers)
        VALUES (environment.id, instant, batch ->> 'id', given -> 'items', answered);
        PERFORM pg_notify('runwell', 'transaction pending_triggers');
    END IF;

    IF batch IS NULL THEN
        RETURN json_build_object('status', 200, 'sub', environment.public_id, 'body', answered -> 0);
    END IF;
    RETURN json_build_object('status', 202, 'sub', environment.public_id, 'body',
        json_build_object(
            'id', batch ->> 'id', 'isCached', false, 'runCount', jsonb_array_length(answered),
            'idempotencyKey', batch ->> 'key', 'runs', answered
        ));
END
$$;

-- It acts with the rights of Runwell's own role, and must not see the tables of a caller by their names.
DO $$
BEGIN
    EXECUTE format(
        'ALTER FUNCTION runwell_trigger(text, text) SET search_path = %I, pg_temp', current_schema()
    );
END
$$;
