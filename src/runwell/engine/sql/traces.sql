-- name: find_traced_run
-- What the spans that stand for a run, its attempts and the delays between them are made of.
SELECT r.id, r.task_id, r.status, r.execution_status, r.trace_context, r.created_at, r.started_at,
    r.finished_at, r.attempt_number, r.error, r.is_test,
    (SELECT jsonb_agg(jsonb_build_object(
            'number', a.number, 'status', a.status, 'error', a.error, 'machine', a.machine,
            'started_at', a.started_at, 'completed_at', a.completed_at
        ) ORDER BY a.number)
        FROM run_attempts a WHERE a.run_id = r.id) AS attempts,
    (SELECT t.due_at FROM run_timers t WHERE t.run_id = r.id) AS due_at
FROM runs r WHERE r.id = :run_id AND r.environment_id = :environment_id;

-- name: list_child_runs
-- Runs that a run triggered, in the order of their ids, from behind one on.
SELECT r.id, r.task_id, r.status, r.execution_status, r.trace_context, r.created_at, r.finished_at
FROM runs r WHERE r.parent_run_id = :run_id AND r.environment_id = :environment_id
    AND r.id > :after
ORDER BY r.id LIMIT :most;

-- name: list_spans
-- Spans of a run in the order of their starts, from behind one on.
SELECT s.span_id, s.parent_span_id, s.attempt_number, s.name, s.kind, s.level, s.started_at,
    s.ended_at, s.is_error, s.is_canceled, s.attributes, s.events, s.links
FROM run_spans s
WHERE s.run_id = :run_id AND s.day >= :first_day::date
    AND (s.started_at, s.span_id) > (:after_time::timestamptz, :after_span_id::text)
ORDER BY s.started_at, s.span_id LIMIT :most;

-- name: list_children
-- Spans right under a span, in the order of their starts, from behind one on.
SELECT s.span_id, s.parent_span_id, s.attempt_number, s.name, s.kind, s.level, s.started_at,
    s.ended_at, s.is_error, s.is_canceled, s.attributes, s.events, s.links
FROM run_spans s
WHERE s.run_id = :run_id AND s.day >= :first_day::date AND s.parent_span_id = :parent_span_id
    AND (s.started_at, s.span_id) > (:after_time::timestamptz, :after_span_id::text)
ORDER BY s.started_at, s.span_id LIMIT :most;

-- name: list_lines
-- Captured lines of a run in their order, from behind one on.
SELECT l.attempt_number, l.seq, l.span_id, l.logged_at, l.level, l.message, l.attributes
FROM run_logs l
WHERE l.run_id = :run_id
    AND (l.attempt_number, l.seq) > (:after_attempt::integer, :after_seq::integer)
ORDER BY l.attempt_number, l.seq LIMIT :most;

-- name: list_lines_in_span
-- Captured lines that were written in a span, in their order, from behind one on.
SELECT l.attempt_number, l.seq, l.span_id, l.logged_at, l.level, l.message, l.attributes
FROM run_logs l
WHERE l.run_id = :run_id AND l.span_id = :span_id
    AND (l.attempt_number, l.seq) > (:after_attempt::integer, :after_seq::integer)
ORDER BY l.attempt_number, l.seq LIMIT :most;

-- name: list_lines_of_attempt
-- Captured lines of an attempt that were written in no span, in their order, from behind one on.
SELECT l.attempt_number, l.seq, l.span_id, l.logged_at, l.level, l.message, l.attributes
FROM run_logs l
WHERE l.run_id = :run_id AND l.attempt_number = :attempt_number::integer
    AND l.seq > :after_seq::integer AND l.span_id IS NULL
ORDER BY l.seq LIMIT :most;

-- name: find_span
-- One span of a run.
SELECT s.span_id, s.parent_span_id, s.attempt_number, s.name, s.kind, s.level, s.started_at,
    s.ended_at, s.is_error, s.is_canceled, s.attributes, s.events, s.links
FROM run_spans s
WHERE s.run_id = :run_id AND s.span_id = :span_id AND s.day >= :first_day::date LIMIT 1;

-- name: list_parents
-- Those of these spans that have something under them.
SELECT g.span_id FROM unnest(:span_ids::text[]) AS g (span_id)
WHERE EXISTS (
    SELECT FROM run_spans s WHERE s.run_id = :run_id AND s.parent_span_id = g.span_id
        AND s.day >= :first_day::date
) OR EXISTS (SELECT FROM run_logs l WHERE l.run_id = :run_id AND l.span_id = g.span_id);
