-- name: upsert_spans
-- Spans in parallel arrays, each once. One that is there takes the place of nothing but a partial one
-- that goes on: a late partial span never hides its end.
INSERT INTO run_spans (
    day, run_id, span_id, parent_span_id, attempt_number, name, kind, level, started_at, ended_at,
    is_error, is_canceled, attributes, events, links
)
SELECT (g.started_at AT TIME ZONE 'UTC')::date, g.run_id, g.span_id, g.parent_span_id,
    g.attempt_number, g.name, g.kind, g.level, g.started_at, g.ended_at, g.is_error, g.is_canceled,
    g.attributes::jsonb, g.events::jsonb, g.links::jsonb
FROM unnest(
    :run_ids::text[], :span_ids::text[], :parent_span_ids::text[], :attempt_numbers::integer[],
    :names::text[], :kinds::text[], :levels::text[], :started_at::timestamptz[],
    :ended_at::timestamptz[], :are_errors::boolean[], :are_canceled::boolean[],
    :attributes::text[], :events::text[], :links::text[]
) AS g (
    run_id, span_id, parent_span_id, attempt_number, name, kind, level, started_at, ended_at,
    is_error, is_canceled, attributes, events, links
)
ORDER BY g.run_id, g.span_id
ON CONFLICT (run_id, span_id, day) DO UPDATE SET
    parent_span_id = excluded.parent_span_id, attempt_number = excluded.attempt_number,
    name = excluded.name, kind = excluded.kind, level = excluded.level,
    ended_at = excluded.ended_at, is_error = excluded.is_error,
    is_canceled = excluded.is_canceled, attributes = excluded.attributes,
    events = excluded.events, links = excluded.links
WHERE run_spans.ended_at IS NULL AND excluded.ended_at IS NOT NULL;

-- name: find_runs
-- Those of these runs that an environment has, with the attempt that each is at.
SELECT r.id, r.attempt_number FROM runs r
WHERE r.id = ANY(:run_ids::text[]) AND r.environment_id = :environment_id;

-- name: make_span_days
-- Make partitions ahead.
SELECT make_span_days(:first_day::date, :days::integer);

-- name: drop_span_days
-- Drop partitions that are older than a day.
SELECT drop_span_days(:first_kept::date);
