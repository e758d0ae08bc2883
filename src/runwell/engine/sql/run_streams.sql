-- name: find_target
-- The run that a stream belongs to, as seen from another one: itself, its parent, or its root.
SELECT coalesce(t.id, r.id) AS run_id,
    coalesce(t.execution_status, r.execution_status) = 'FINISHED' AS has_ended,
    (SELECT count(*) FROM run_streams s WHERE s.run_id = coalesce(t.id, r.id)) AS streams,
    EXISTS (
        SELECT FROM run_streams s WHERE s.run_id = coalesce(t.id, r.id) AND s.key = :key
    ) AS is_there
FROM runs r LEFT JOIN runs t ON t.id = CASE :target::text
    WHEN 'parent' THEN r.parent_run_id WHEN 'root' THEN r.root_run_id END
WHERE r.id = :run_id AND r.environment_id = :environment_id;

-- name: open_stream
-- Note a writer of a stream, which begins with its first one; returns how many there are.
INSERT INTO run_streams AS s (run_id, key, open_writers, look_at)
VALUES (:run_id, :key, ARRAY[:writer::text], :look_at)
ON CONFLICT (run_id, key) DO UPDATE
SET open_writers = array_append(array_remove(s.open_writers, :writer::text), :writer::text)
RETURNING cardinality(open_writers);

-- name: close_writer
-- A writer has ended.
UPDATE run_streams SET open_writers = array_remove(open_writers, :writer::text)
WHERE run_id = :run_id AND key = :key AND :writer::text = ANY(open_writers);

-- name: lock_stream
-- Lock a stream: chunks are numbered one writer after the other. And whether its run has ended.
SELECT s.chunks, (r.execution_status IS NULL OR r.execution_status = 'FINISHED') AS has_ended
FROM run_streams s LEFT JOIN runs r ON r.id = s.run_id
WHERE s.run_id = :run_id AND s.key = :key FOR UPDATE OF s;

-- name: append_chunks
-- Add those chunks of a writer that are not there yet to a locked stream; its size then.
WITH known AS (
    SELECT coalesce(max(c.writer_number), -1) AS last FROM run_stream_chunks c
    WHERE c.run_id = :run_id AND c.key = :key AND c.writer = :writer
), added AS (
    INSERT INTO run_stream_chunks (run_id, key, number, writer, writer_number, body, created_at)
    SELECT :run_id, :key, :first + row_number() OVER (ORDER BY g.ordinal) - 1, :writer,
        :writer_first + g.ordinal - 1, g.body, :now
    FROM unnest(:bodies::text[]) WITH ORDINALITY AS g (body, ordinal)
    WHERE :writer_first + g.ordinal - 1 > (SELECT last FROM known)
    RETURNING octet_length(body) AS size
), total AS (
    SELECT count(*) AS chunks, coalesce(sum(size), 0) AS bytes FROM added
)
UPDATE run_streams s SET chunks = s.chunks + t.chunks, bytes = s.bytes + t.bytes
FROM total t WHERE s.run_id = :run_id AND s.key = :key
RETURNING s.chunks, s.bytes, t.chunks AS added;

-- name: find_last_chunk
-- The number of the last chunk that a writer has stored.
SELECT max(c.writer_number) FROM run_stream_chunks c
WHERE c.run_id = :run_id AND c.key = :key AND c.writer = :writer;

-- name: read_chunks
-- The next chunks of a stream, and whether there can be more: one row without a chunk if there is none.
SELECT c.number, c.body, c.created_at,
    s.run_id IS NOT NULL AND cardinality(s.open_writers) = 0 AS is_closed,
    (r.execution_status IS NULL OR r.execution_status = 'FINISHED') AS has_ended
FROM (SELECT :run_id::text COLLATE "C" AS run_id) g
LEFT JOIN runs r ON r.id = g.run_id
LEFT JOIN run_streams s ON s.run_id = g.run_id AND s.key = :key
LEFT JOIN LATERAL (
    SELECT c.number, c.body, c.created_at FROM run_stream_chunks c
    WHERE c.run_id = g.run_id AND c.key = :key AND c.number > :after
    ORDER BY c.number LIMIT :most
) c ON true
ORDER BY c.number;

-- name: delete_old_streams
-- Look at the next streams: those whose run ended long ago, or is gone, are deleted. How many were seen.
WITH seen AS MATERIALIZED (
    SELECT s.run_id, s.key FROM run_streams s WHERE s.look_at <= :now
    ORDER BY s.look_at LIMIT :most FOR UPDATE SKIP LOCKED
), judged AS MATERIALIZED (
    SELECT s.run_id, s.key, r.id IS NULL OR r.finished_at <= :ended_before AS is_old, r.finished_at
    FROM seen s LEFT JOIN runs r ON r.id = s.run_id
), deleted AS (
    DELETE FROM run_streams s USING judged j
    WHERE j.is_old AND s.run_id = j.run_id AND s.key = j.key
), kept AS (
    UPDATE run_streams s SET look_at = coalesce(j.finished_at, :now) + (:now - :ended_before)
    FROM judged j WHERE j.is_old IS NOT TRUE AND s.run_id = j.run_id AND s.key = j.key
)
SELECT count(*) FROM seen;
