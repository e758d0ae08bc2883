-- name: read_runs
-- Those of these runs, or of a batch, that are in a shape and have changed since a view, as many as fit;
-- and the view in which they were read. There is always a row; without a run its id is null.
SELECT v.view, r.* FROM (
    SELECT pg_current_snapshot()::text AS view, pg_snapshot_xmax(pg_current_snapshot()) AS xmax,
        :since::text::pg_snapshot AS since, :until::text::pg_snapshot AS until
) v
LEFT JOIN LATERAL (
    SELECT f.* FROM (
        SELECT r.id, r.task_id, r.status, r.created_at, r.updated_at, r.started_at, r.delayed_until,
            r.queued_at, r.expired_at, r.finished_at, r.idempotency_key, r.is_test, r.duration_ms,
            r.ttl, r.payload_type, r.metadata, r.output, r.output_type, r.tags, r.error, g.number,
            CASE WHEN :with_payload::boolean THEN r.payload END AS payload,
            sum(coalesce(octet_length(r.output), 0) + coalesce(
                CASE WHEN :with_payload::boolean THEN octet_length(r.payload) END, 0
            )) OVER (ORDER BY r.id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
        FROM (
            SELECT u.id, 0 AS number FROM unnest(:run_ids::text[]) AS u (id)
            WHERE :batch_id::text IS NULL
            UNION ALL
            SELECT i.run_id, min(i.index) + 1 FROM batch_items i
            WHERE i.batch_id = :batch_id AND (:run_ids IS NULL OR i.run_id = ANY(:run_ids))
            GROUP BY i.run_id
        ) g
        JOIN runs r ON r.id = g.id
        WHERE r.environment_id = :environment_id
            AND (:tags::text[] IS NULL OR r.tags @> :tags)
            AND (:created_from::timestamptz IS NULL OR r.created_at >= :created_from)
            AND (:after::text IS NULL OR r.id > :after)
            -- A number that is yet to come is from a database that this one was restored from.
            AND (v.since IS NULL OR (
                r.changed_xid < v.xmax AND NOT pg_visible_in_snapshot(r.changed_xid, v.since)
                -- What came after is told of later, and not twice.
                AND (v.until IS NULL OR pg_visible_in_snapshot(r.changed_xid, v.until))
            ))
        ORDER BY r.id LIMIT :most
    ) f
    WHERE coalesce(f.bytes_before, 0) < :max_bytes
) r ON true
ORDER BY r.id;

-- name: read_tagged_runs
-- The same for all runs that have these tags.
SELECT v.view, r.* FROM (
    SELECT pg_current_snapshot()::text AS view, pg_snapshot_xmax(pg_current_snapshot()) AS xmax,
        :since::text::pg_snapshot AS since
) v
LEFT JOIN LATERAL (
    SELECT f.* FROM (
        SELECT r.id, r.task_id, r.status, r.created_at, r.updated_at, r.started_at, r.delayed_until,
            r.queued_at, r.expired_at, r.finished_at, r.idempotency_key, r.is_test, r.duration_ms,
            r.ttl, r.payload_type, r.metadata, r.output, r.output_type, r.tags, r.error, r.payload,
            0 AS number,
            sum(coalesce(octet_length(r.output), 0) + coalesce(octet_length(r.payload), 0))
                OVER (ORDER BY r.id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
        FROM runs r
        WHERE r.environment_id = :environment_id
            AND r.tags @> :tags::text[] AND r.tags <> '{}'
            AND (:created_from::timestamptz IS NULL OR r.created_at >= :created_from)
            AND (:after::text IS NULL OR r.id > :after)
            AND (v.since IS NULL OR (
                r.changed_xid < v.xmax AND NOT pg_visible_in_snapshot(r.changed_xid, v.since)
            ))
        ORDER BY r.id LIMIT :most
    ) f
    WHERE coalesce(f.bytes_before, 0) < :max_bytes
) r ON true
ORDER BY r.id;

-- name: has_batch
-- Whether an environment has this batch.
SELECT EXISTS (
    SELECT FROM batches WHERE id = :batch_id AND environment_id = :environment_id
);

-- name: has_run
-- Whether an environment has this run.
SELECT EXISTS (SELECT FROM runs WHERE id = :run_id AND environment_id = :environment_id);
