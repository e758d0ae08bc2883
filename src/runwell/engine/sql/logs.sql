-- name: insert_lines
-- Captured lines, in parallel arrays; one that is there already stays as it is.
INSERT INTO run_logs (
    run_id, attempt_number, seq, logged_at, level, message, attributes, span_id
)
SELECT g.run_id, g.attempt_number, g.seq, g.logged_at, g.level, g.message, g.attributes::jsonb,
    g.span_id
FROM unnest(
    :run_ids::text[], :attempt_numbers::integer[], :seqs::integer[], :logged_at::timestamptz[],
    :levels::text[], :messages::text[], :attributes::text[], :span_ids::text[]
) AS g (run_id, attempt_number, seq, logged_at, level, message, attributes, span_id)
ON CONFLICT DO NOTHING;

-- name: read_lines
-- Lines of a run after a place in it.
SELECT attempt_number, seq, logged_at, level, message, attributes FROM run_logs
WHERE run_id = :run_id AND (attempt_number, seq) > (:after_attempt::integer, :after_seq::integer)
ORDER BY attempt_number, seq LIMIT :most;
