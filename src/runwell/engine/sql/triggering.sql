-- name: insert_runs
-- New runs and their places in their queues, in one statement: all of them or none. A row for each
-- says what its run is, which may be one that its idempotency key had already. With anything missing
-- nothing has happened, and `missing` says what: a VERSION, the TASK in that version, the PARENT that
-- is to wait, or the QUEUE.
WITH environment AS MATERIALIZED (
    SELECT e.id, e.type, e.current_background_worker_id FROM environments e
    WHERE e.id = :environment_id
), given AS MATERIALIZED (
    SELECT g.*, s.id AS subqueue_id, s.queue_id, b.id AS version_id,
        coalesce(g.queue_name, t.queue_name, g.default_queue_name) AS wanted_queue,
        -- A time to live of 0 is none, where there is a default one too.
        CASE WHEN coalesce(g.ttl_seconds, t.ttl_seconds, 1) <> 0 THEN coalesce(
            g.ttl, t.ttl_seconds || 's', CASE e.type WHEN 'DEVELOPMENT' THEN '10m' END
        ) END AS used_ttl,
        nullif(coalesce(
            g.ttl_seconds, t.ttl_seconds, CASE e.type WHEN 'DEVELOPMENT' THEN 600 END
        ), 0) AS used_ttl_seconds,
        CASE
            WHEN g.delayed_until > :now THEN 'DELAYED'
            WHEN t.task_id IS NOT NULL THEN 'QUEUED'
            ELSE 'RUN_CREATED'
        END AS execution_status,
        CASE
            WHEN g.version IS NOT NULL AND b.id IS NULL THEN 'VERSION'
            WHEN g.version IS NOT NULL AND t.task_id IS NULL THEN 'TASK'
            WHEN g.is_awaited AND (p.id IS NULL OR p.execution_status = 'FINISHED') THEN 'PARENT'
            WHEN s.id IS NULL THEN 'QUEUE'
        END AS missing,
        p.id AS found_parent_id, coalesce(p.root_run_id, p.id) AS root_run_id, p.depth AS parent_depth
    FROM unnest(:runs::new_run[]) WITH ORDINALITY AS g
    CROSS JOIN environment e
    -- OFFSET 0: looked up row by row. Planned on empty tables, joins would read whole ones later.
    LEFT JOIN LATERAL (
        SELECT b.id FROM background_workers b
        WHERE g.version IS NOT NULL AND b.environment_id = e.id AND b.version = g.version OFFSET 0
    ) b ON true
    LEFT JOIN LATERAL (
        SELECT t.task_id, t.queue_name, t.ttl_seconds FROM background_worker_tasks t
        WHERE t.background_worker_id = coalesce(b.id, e.current_background_worker_id)
            AND t.task_id = g.task_id OFFSET 0
    ) t ON true
    LEFT JOIN LATERAL (
        SELECT q.id FROM queues q
        WHERE q.environment_id = e.id
            AND q.name = coalesce(g.queue_name, t.queue_name, g.default_queue_name) OFFSET 0
    ) q ON true
    LEFT JOIN LATERAL (
        SELECT s.id, s.queue_id FROM subqueues s
        WHERE s.queue_id = q.id AND s.concurrency_key = coalesce(g.concurrency_key, '') OFFSET 0
    ) s ON true
    LEFT JOIN LATERAL (
        SELECT p.id, p.root_run_id, p.depth, p.execution_status FROM runs p
        WHERE p.environment_id = e.id AND p.id = g.parent_run_id OFFSET 0
    ) p ON true
), waited_for AS MATERIALIZED (
    -- The lock says that a run is on its way: see lock_idle_subqueues.
    SELECT s.id, s.has_queued FROM subqueues s
    WHERE s.id = ANY(ARRAY(SELECT DISTINCT subqueue_id FROM given))
    ORDER BY s.id FOR KEY SHARE
), whole AS MATERIALIZED (
    -- One that was deleted while we waited for it is there no more: see delete_unused_subqueues.
    SELECT NOT EXISTS (SELECT FROM given WHERE missing IS NOT NULL)
        AND (SELECT count(*) FROM waited_for)
            = (SELECT count(DISTINCT subqueue_id) FROM given) AS is_whole
), taken AS MATERIALIZED (
    -- A map: a join would be nested loops, a thousand by a thousand. Nothing of it is even prepared when
    -- no run has a key.
    SELECT claim_idempotency_keys(:environment_id, :runs, :now) AS runs
    FROM whole WHERE is_whole AND EXISTS (SELECT FROM given WHERE idempotency_key IS NOT NULL)
), resolved AS NOT MATERIALIZED (
    SELECT g.*, coalesce(
        (SELECT runs FROM taken) ->> (g.task_id || chr(31) || g.idempotency_key), g.run_id
    ) AS final_run_id
    FROM given g
), run AS (
    INSERT INTO runs (
        id, environment_id, task_id, execution_status, status, snapshot_id, queue_id, subqueue_id,
        concurrency_key, order_at, priority_seconds, background_worker_id, is_version_locked,
        payload, payload_type, context, metadata, tags, is_test, idempotency_key, max_attempts,
        max_duration, machine, delayed_until, ttl, ttl_seconds, trace_context, parent_run_id,
        root_run_id, depth, batch_id, trigger_function, created_at, updated_at, queued_at,
        replay_of, region
    )
    SELECT g.run_id, :environment_id, g.task_id, g.execution_status, 'QUEUED', 0, g.queue_id,
        g.subqueue_id, g.concurrency_key,
        greatest(:now, CASE g.execution_status WHEN 'DELAYED' THEN g.delayed_until END)
            - make_interval(secs => g.priority_seconds),
        g.priority_seconds, g.version_id, g.version_id IS NOT NULL, g.payload, g.payload_type,
        g.context::jsonb, g.metadata::jsonb,
        CASE WHEN g.tags IS NULL THEN '{}'
            ELSE ARRAY(SELECT jsonb_array_elements_text(g.tags::jsonb)) END,
        g.is_test, g.idempotency_key, g.max_attempts, g.max_duration, g.machine,
        CASE g.execution_status WHEN 'DELAYED' THEN g.delayed_until END,
        g.used_ttl, g.used_ttl_seconds, g.trace_context::jsonb, g.found_parent_id, g.root_run_id,
        coalesce(g.parent_depth + 1, 0), :batch_id,
        :trigger_function::text || CASE WHEN g.is_awaited THEN 'AndWait' ELSE '' END, :now, :now,
        CASE g.execution_status WHEN 'QUEUED' THEN :now::timestamptz END, g.replay_of, g.region
    FROM resolved g
    WHERE g.final_run_id = g.run_id AND (SELECT is_whole FROM whole)
    ORDER BY g.ordinality
    ON CONFLICT (id) DO NOTHING
    RETURNING id, execution_status, subqueue_id, order_at, ttl_seconds, background_worker_id,
        delayed_until, region
), ordered AS MATERIALIZED (
    SELECT s.id FROM subqueues s
    WHERE s.id = ANY(ARRAY(SELECT id FROM waited_for WHERE NOT has_queued))
    ORDER BY s.id FOR NO KEY UPDATE
), activated AS (
    -- Not `AND NOT s.has_queued`: that is as it was before we waited for who retired the subqueue.
    UPDATE subqueues s SET has_queued = true WHERE s.id = ANY(ARRAY(SELECT id FROM ordered))
), queued AS (
    INSERT INTO queued_runs
        (run_id, subqueue_id, background_worker_id, region, order_at, expires_at)
    SELECT id, subqueue_id, coalesce(background_worker_id, 0),
        CASE WHEN region IS NULL THEN '' ELSE queued_region(:environment_id, region) END, order_at,
        CASE WHEN ttl_seconds IS NOT NULL
            THEN :now::timestamptz + make_interval(secs => ttl_seconds) END
    FROM run WHERE execution_status = 'QUEUED'
), timed AS (
    INSERT INTO run_timers (run_id, due_at)
    SELECT id, delayed_until FROM run WHERE execution_status = 'DELAYED'
)
SELECT g.final_run_id AS run_id, g.wanted_queue AS queue_name,
    coalesce(g.missing, CASE WHEN NOT (SELECT is_whole FROM whole) THEN 'QUEUE' END) AS missing
FROM resolved g ORDER BY g.ordinality;

-- name: find_wanted_queues
-- The queues that new runs would go to, and what their versions lack; see insert_runs.
SELECT coalesce(g.queue_name, t.queue_name, g.default_queue_name) AS queue_name,
    CASE
        WHEN g.version IS NOT NULL AND b.id IS NULL THEN 'VERSION'
        WHEN g.version IS NOT NULL AND t.task_id IS NULL THEN 'TASK'
    END AS missing
FROM unnest(:task_id::text[], :version::text[], :queue_name::text[], :default_queue_name::text[])
    WITH ORDINALITY AS g (task_id, version, queue_name, default_queue_name, place)
CROSS JOIN environments e
LEFT JOIN LATERAL (
    SELECT b.id FROM background_workers b
    WHERE g.version IS NOT NULL AND b.environment_id = e.id AND b.version = g.version OFFSET 0
) b ON true
LEFT JOIN LATERAL (
    SELECT t.task_id, t.queue_name FROM background_worker_tasks t
    WHERE t.background_worker_id = coalesce(b.id, e.current_background_worker_id)
        AND t.task_id = g.task_id OFFSET 0
) t ON true
WHERE e.id = :environment_id
ORDER BY g.place;

-- name: name_request
-- The run of a request whose key doesn't make its id; whoever sends it a second time gets the first.
INSERT INTO trigger_requests AS t (environment_id, request_key, run_id, created_at)
VALUES (:environment_id, :request_key, :run_id, :now)
ON CONFLICT (environment_id, request_key) DO UPDATE SET run_id = t.run_id
RETURNING t.run_id;

-- name: join_batch
-- A run becomes one more item of a sealed batch, unless it is one; no row when there is no such batch.
WITH joined AS MATERIALIZED (
    SELECT b.id, b.run_count FROM batches b
    WHERE b.id = :batch_id AND b.environment_id = :environment_id AND b.sealed_at IS NOT NULL
    FOR NO KEY UPDATE
), item AS (
    INSERT INTO batch_items (batch_id, index, run_id, is_cached)
    SELECT j.id, j.run_count, :run_id, :is_cached FROM joined j
    WHERE NOT EXISTS (
        SELECT FROM batch_items i WHERE i.batch_id = j.id AND i.run_id = :run_id
    )
    RETURNING batch_id
), grown AS (
    UPDATE batches SET run_count = run_count + 1 WHERE id IN (SELECT batch_id FROM item)
)
SELECT id FROM joined;

-- name: join_bulk_action
-- A run is one that a bulk action made; no row when there is no such bulk action.
WITH action AS MATERIALIZED (
    SELECT a.id FROM bulk_actions a
    WHERE a.public_id = :bulk_action_id AND a.environment_id = :environment_id
), item AS (
    INSERT INTO bulk_action_items (bulk_action_id, run_id, status, new_run_id)
    SELECT a.id, :run_id, 'SUCCEEDED', :run_id FROM action a
    ON CONFLICT (bulk_action_id, run_id) DO NOTHING
)
SELECT id FROM action;
