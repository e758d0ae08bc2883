-- Waits: what runs wait for inside their tasks, and how they go on.

-- Which slots a waiting run has given back: 0 none, 1 that of the environment, 2 that of its queue too.
ALTER TABLE runs ADD COLUMN released_slots smallint NOT NULL DEFAULT 0
    CHECK (released_slots BETWEEN 0 AND 2);

-- What can be waited for. It is completed once, and stays so.
CREATE TABLE waitpoints (
    id text COLLATE "C" PRIMARY KEY,
    environment_id bigint NOT NULL,
    type text NOT NULL CHECK (type IN ('RUN', 'DATETIME', 'MANUAL')),
    status text NOT NULL DEFAULT 'PENDING' CHECK (status IN ('PENDING', 'COMPLETED')),
    -- RUN: complete when this run has ended.
    run_id text COLLATE "C" REFERENCES runs ON DELETE CASCADE,
    -- DATETIME: when it completes. MANUAL: when it times out.
    due_at timestamptz,
    output text,
    output_type text,
    is_error boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL,
    completed_at timestamptz,
    CHECK ((type = 'RUN') = (run_id IS NOT NULL)),
    CHECK (type <> 'DATETIME' OR due_at IS NOT NULL),
    CHECK ((status = 'COMPLETED') = (completed_at IS NOT NULL))
) WITH (fillfactor = 75);
CREATE UNIQUE INDEX waitpoints_of_runs ON waitpoints (run_id) WHERE run_id IS NOT NULL;
CREATE INDEX waitpoints_due ON waitpoints (due_at) WHERE status = 'PENDING' AND due_at IS NOT NULL;
CREATE INDEX waitpoints_done ON waitpoints (completed_at) WHERE type <> 'RUN';

-- The waits of runs: each is on one waitpoint or on several, and complete when all of them are. A wait
-- is here until its run has its result.
CREATE TABLE run_waits (
    run_id text COLLATE "C" NOT NULL REFERENCES runs ON DELETE CASCADE,
    wait_id text COLLATE "C" NOT NULL,
    position integer NOT NULL,
    waitpoint_id text COLLATE "C" NOT NULL REFERENCES waitpoints ON DELETE CASCADE,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (run_id, wait_id, position)
);
CREATE INDEX ON run_waits (waitpoint_id);

-- Runs to look at since a waitpoint of theirs was completed. Append-only and without a key: the ends of
-- a thousand children must not wait for each other. No foreign key: it would lock the waiting run.
CREATE TABLE run_wakes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id text COLLATE "C" NOT NULL
) WITH (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0
);

-- Runs whose waits are complete and for which no slot was free.
CREATE TABLE resuming_runs (
    run_id text COLLATE "C" PRIMARY KEY REFERENCES runs ON DELETE CASCADE,
    environment_id bigint NOT NULL,
    subqueue_id bigint NOT NULL,
    order_at timestamptz NOT NULL
);
CREATE INDEX ON resuming_runs (environment_id, order_at, run_id);

-- The same as before, and a run that no worker holds has all its slots to ask for.
CREATE OR REPLACE FUNCTION apply_run_event() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    moved run_transitions%ROWTYPE;
BEGIN
    IF TG_OP = 'INSERT' THEN
        SELECT * INTO moved FROM run_transitions
        WHERE from_status = '' AND event = 'TRIGGER' AND to_status = NEW.execution_status;
    ELSE
        SELECT * INTO moved FROM run_transitions
        WHERE from_status = OLD.execution_status AND event = NEW.event;
    END IF;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'run % is %: % can''t happen to it there', NEW.id,
            CASE TG_OP WHEN 'INSERT' THEN 'new' ELSE OLD.execution_status END, NEW.event
            USING ERRCODE = 'RW001';
    END IF;
    NEW.execution_status := moved.to_status;
    NEW.status := coalesce(moved.run_status, NEW.status);
    NEW.snapshot_id := nextval('run_snapshots_id_seq');
    IF NEW.event = 'DEQUEUE' THEN
        NEW.lease_id := NEW.snapshot_id;
    ELSIF NEW.execution_status NOT IN (
        'PENDING_EXECUTING', 'EXECUTING', 'EXECUTING_WITH_WAITPOINTS', 'QUEUED_EXECUTING',
        'PENDING_CANCEL'
    ) THEN
        NEW.lease_id := NULL;
        NEW.worker_id := NULL;
        NEW.dequeue_request_id := NULL;
        NEW.released_slots := 0;
    END IF;
    RETURN NEW;
END
$$;

-- Slots are counted where leases change hands and where waits begin and end.
CREATE OR REPLACE FUNCTION count_slots() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    subqueue_ids bigint[];
    environment_ids bigint[];
    environment_deltas integer[];
    subqueue_deltas integer[];
BEGIN
    SELECT array_agg(d.subqueue_id ORDER BY d.subqueue_id),
        array_agg(d.environment_id ORDER BY d.subqueue_id),
        array_agg(d.of_environment ORDER BY d.subqueue_id),
        array_agg(d.of_subqueue ORDER BY d.subqueue_id)
    INTO subqueue_ids, environment_ids, environment_deltas, subqueue_deltas
    FROM (
        SELECT held.environment_id, held.subqueue_id,
            sum(held.of_environment)::integer AS of_environment,
            sum(held.of_subqueue)::integer AS of_subqueue
        FROM (
            SELECT environment_id, subqueue_id, (released_slots < 1)::integer AS of_environment,
                (released_slots < 2)::integer AS of_subqueue
            FROM after WHERE lease_id IS NOT NULL
            UNION ALL
            SELECT environment_id, subqueue_id, -(released_slots < 1)::integer,
                -(released_slots < 2)::integer
            FROM before WHERE lease_id IS NOT NULL
        ) held
        GROUP BY held.environment_id, held.subqueue_id
        HAVING sum(held.of_environment) <> 0 OR sum(held.of_subqueue) <> 0
    ) d;
    IF subqueue_ids IS NULL THEN
        RETURN NULL;
    END IF;
    UPDATE environment_concurrency c SET running = c.running + d.runs
    FROM (
        SELECT u.environment_id, sum(u.runs)::integer AS runs
        FROM unnest(environment_ids, environment_deltas) AS u (environment_id, runs)
        GROUP BY u.environment_id
    ) d
    WHERE c.environment_id = d.environment_id;
    FOR i IN 1 .. cardinality(subqueue_ids) LOOP
        UPDATE subqueues s SET running = s.running + subqueue_deltas[i]
        WHERE s.id = subqueue_ids[i] AND subqueue_deltas[i] <> 0;
    END LOOP;
    RETURN NULL;
END
$$;

-- The end of a run completes what waits for it; a run that no worker holds any more waits for nothing.
CREATE FUNCTION end_waits() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM after WHERE lease_id IS NULL) THEN
        RETURN NULL;
    END IF;
    UPDATE waitpoints w SET status = 'COMPLETED', completed_at = clock_timestamp()
    FROM after a
    WHERE a.execution_status = 'FINISHED' AND w.run_id = a.id AND w.status = 'PENDING';
    DELETE FROM run_waits w USING after a JOIN before b ON b.id = a.id
    WHERE a.lease_id IS NULL AND b.lease_id IS NOT NULL AND w.run_id = a.id;
    DELETE FROM resuming_runs z USING after a JOIN before b ON b.id = a.id
    WHERE a.lease_id IS NULL AND b.lease_id IS NOT NULL AND z.run_id = a.id;
    RETURN NULL;
END
$$;

CREATE TRIGGER end_waits AFTER UPDATE ON runs
    REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION end_waits();

-- Whatever completes a waitpoint, the runs that wait for it are looked at.
CREATE FUNCTION wake_waiting_runs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO run_wakes (run_id)
    SELECT DISTINCT w.run_id
    FROM after a JOIN before b ON b.id = a.id JOIN run_waits w ON w.waitpoint_id = a.id
    WHERE a.status = 'COMPLETED' AND b.status = 'PENDING';
    RETURN NULL;
END
$$;

CREATE TRIGGER wake_waiting_runs AFTER UPDATE ON waitpoints
    REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION wake_waiting_runs();
