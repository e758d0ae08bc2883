-- Spans of runs, a partition for each day: what is old goes with its day, at once.
CREATE TABLE run_spans (
    day date NOT NULL,
    run_id text COLLATE "C" NOT NULL,
    span_id text COLLATE "C" NOT NULL,
    -- The span that stands for its attempt, or for its run, when it has no other one.
    parent_span_id text COLLATE "C" NOT NULL,
    attempt_number integer NOT NULL,
    name text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('INTERNAL', 'SERVER', 'CLIENT', 'PRODUCER', 'CONSUMER')),
    level text NOT NULL
        CHECK (level IN ('SPAN', 'TRACE', 'DEBUG', 'LOG', 'INFO', 'WARN', 'ERROR')),
    started_at timestamptz NOT NULL,
    -- Null while it goes on: a partial span.
    ended_at timestamptz,
    is_error boolean NOT NULL,
    is_canceled boolean NOT NULL,
    attributes jsonb,
    events jsonb,
    links jsonb,
    PRIMARY KEY (run_id, span_id, day)
) PARTITION BY RANGE (day);
CREATE INDEX run_spans_in_order ON run_spans (run_id, parent_span_id, started_at, span_id);

-- For days that nobody made a partition for: spans that say they are from another year.
CREATE TABLE run_spans_other PARTITION OF run_spans DEFAULT;

-- Make the partitions of so many days from one on, but for those whose spans are in the default one.
CREATE FUNCTION make_span_days(first_day date, days integer) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    wanted date;
    name text;
    made integer := 0;
BEGIN
    PERFORM set_config('lock_timeout', '2s', true);
    -- Servers that start together make each once.
    PERFORM pg_advisory_xact_lock(7236021);
    FOR i IN 0 .. days - 1 LOOP
        wanted := first_day + i;
        name := 'run_spans_' || to_char(wanted, 'YYYYMMDD');
        IF to_regclass(name) IS NULL
            AND NOT EXISTS (SELECT FROM run_spans_other WHERE day = wanted)
        THEN
            EXECUTE format(
                'CREATE TABLE %I PARTITION OF run_spans FOR VALUES FROM (%L) TO (%L)',
                name, wanted, wanted + 1
            );
            made := made + 1;
        END IF;
    END LOOP;
    RETURN made;
END
$$;

-- Drop the partitions of the days before one; returns how many. What is in the default one goes too.
CREATE FUNCTION drop_span_days(first_kept date) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    name text;
    dropped integer := 0;
BEGIN
    PERFORM set_config('lock_timeout', '2s', true);
    PERFORM pg_advisory_xact_lock(7236021);
    FOR name IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'run_spans'::regclass AND c.relname ~ '^run_spans_\d{8}$'
            AND c.relname < 'run_spans_' || to_char(first_kept, 'YYYYMMDD')
        ORDER BY c.relname
    LOOP
        EXECUTE format('DROP TABLE %I', name);
        dropped := dropped + 1;
    END LOOP;
    DELETE FROM run_spans_other WHERE day < first_kept;
    RETURN dropped;
END
$$;

SELECT make_span_days((now() AT TIME ZONE 'UTC')::date, 3);

-- The span that a captured line was written in; null: right under its attempt.
ALTER TABLE run_logs ADD COLUMN span_id text COLLATE "C";
CREATE INDEX run_logs_in_spans ON run_logs (run_id, span_id, attempt_number, seq)
    WHERE span_id IS NOT NULL;
