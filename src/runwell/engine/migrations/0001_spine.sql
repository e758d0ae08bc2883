-- Organisations, projects, environments, versions, queues, runs: what everything stands on.
-- Ids that clients see are texts, compared byte by byte, whatever the database's own collation is.

CREATE TABLE organizations (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    public_id text COLLATE "C" NOT NULL UNIQUE,
    slug text NOT NULL UNIQUE,
    name text NOT NULL,
    created_at timestamptz NOT NULL
);

CREATE TABLE projects (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    public_id text COLLATE "C" NOT NULL UNIQUE,
    organization_id bigint NOT NULL REFERENCES organizations,
    ref text COLLATE "C" NOT NULL UNIQUE,
    slug text NOT NULL UNIQUE,
    name text NOT NULL,
    created_at timestamptz NOT NULL
);

CREATE TABLE environments (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    public_id text COLLATE "C" NOT NULL UNIQUE,
    project_id bigint NOT NULL REFERENCES projects,
    slug text NOT NULL CHECK (slug IN ('dev', 'stg', 'prod')),
    type text NOT NULL CHECK (type IN ('DEVELOPMENT', 'STAGING', 'PRODUCTION')),
    concurrency_limit integer NOT NULL CHECK (concurrency_limit >= 0),
    current_background_worker_id bigint,
    created_at timestamptz NOT NULL,
    UNIQUE (project_id, slug)
);

-- An environment has several keys while one is being replaced. They are kept readable: public
-- tokens are verified with the key itself.
CREATE TABLE api_keys (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    environment_id bigint NOT NULL REFERENCES environments,
    secret_key text COLLATE "C" NOT NULL UNIQUE,
    created_at timestamptz NOT NULL,
    expires_at timestamptz
);
CREATE INDEX ON api_keys (environment_id);

-- One version of a project's indexed tasks.
CREATE TABLE background_workers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    public_id text COLLATE "C" NOT NULL UNIQUE,
    environment_id bigint NOT NULL REFERENCES environments,
    version_day date NOT NULL,
    version_number integer NOT NULL CHECK (version_number > 0),
    version text COLLATE "C" NOT NULL
        GENERATED ALWAYS AS (
            lpad((extract(year FROM version_day))::integer::text, 4, '0')
            || lpad((extract(month FROM version_day))::integer::text, 2, '0')
            || lpad((extract(day FROM version_day))::integer::text, 2, '0')
            || '.' || version_number::text
        ) STORED,
    content_hash text NOT NULL,
    package_version text NOT NULL,
    created_at timestamptz NOT NULL,
    UNIQUE (environment_id, version_day, version_number),
    UNIQUE (environment_id, version)
);
CREATE INDEX ON background_workers (environment_id, content_hash);

ALTER TABLE environments
    ADD FOREIGN KEY (current_background_worker_id) REFERENCES background_workers;

CREATE TABLE background_worker_tasks (
    background_worker_id bigint NOT NULL REFERENCES background_workers ON DELETE CASCADE,
    task_id text COLLATE "C" NOT NULL,
    description text,
    file_path text NOT NULL,
    export_name text NOT NULL,
    queue_name text COLLATE "C" NOT NULL,
    retry jsonb NOT NULL,
    machine text NOT NULL,
    max_duration integer,
    ttl_seconds integer,
    keep_process boolean NOT NULL DEFAULT false,
    payload_schema jsonb,
    PRIMARY KEY (background_worker_id, task_id)
);

CREATE TABLE queues (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    public_id text COLLATE "C" NOT NULL UNIQUE,
    environment_id bigint NOT NULL REFERENCES environments,
    name text COLLATE "C" NOT NULL,
    concurrency_limit integer CHECK (concurrency_limit BETWEEN 0 AND 100000),
    is_paused boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL,
    UNIQUE (environment_id, name)
);

-- How many runs of an environment are with workers now, and whose turn it is. Every dequeue and
-- every end of a run locks this row first: it is the one lock that limits are counted under.
CREATE TABLE environment_concurrency (
    environment_id bigint PRIMARY KEY REFERENCES environments ON DELETE CASCADE,
    running integer NOT NULL DEFAULT 0 CHECK (running >= 0),
    turn bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 30);

-- A queue is one subqueue per concurrency key; runs without a key are in that of the empty key.
-- Here is counted what runs, and remembered whether anything may wait: never how much waits, since
-- one row changed by every trigger would put all triggers in line.
CREATE TABLE subqueues (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue_id bigint NOT NULL REFERENCES queues ON DELETE CASCADE,
    environment_id bigint NOT NULL,
    concurrency_key text COLLATE "C" NOT NULL,
    -- Copies of the queue's settings; 2147483647 stands for no limit.
    concurrency_limit integer NOT NULL DEFAULT 2147483647,
    is_paused boolean NOT NULL DEFAULT false,
    -- False says for sure that nothing waits; true says that something may.
    has_queued boolean NOT NULL DEFAULT false,
    running integer NOT NULL DEFAULT 0 CHECK (running >= 0),
    -- When it was last served; the smallest goes first.
    turn bigint NOT NULL DEFAULT 0,
    UNIQUE (queue_id, concurrency_key)
) WITH (
    fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500,
    autovacuum_vacuum_cost_delay = 0
);
-- What a dequeue looks at: a subqueue at its limit, paused or empty is not in it, and costs nothing.
CREATE INDEX subqueues_ready ON subqueues (environment_id, turn, id)
    WHERE has_queued AND NOT is_paused AND running < concurrency_limit;

-- The table of transitions, the same as in core/statuses.py (a test compares them). An initial
-- status has the event TRIGGER and an empty from_status. A run_status of null keeps the one there.
CREATE TABLE run_transitions (
    from_status text NOT NULL,
    event text NOT NULL,
    to_status text NOT NULL,
    run_status text,
    PRIMARY KEY (from_status, event, to_status)
);
INSERT INTO run_transitions (from_status, event, to_status, run_status) VALUES
    ('', 'TRIGGER', 'RUN_CREATED', 'WAITING_FOR_DEPLOY'),
    ('', 'TRIGGER', 'DELAYED', 'DELAYED'),
    ('', 'TRIGGER', 'QUEUED', 'QUEUED'),
    ('RUN_CREATED', 'ENQUEUE', 'QUEUED', 'QUEUED'),
    ('RUN_CREATED', 'EXPIRE', 'FINISHED', 'EXPIRED'),
    ('RUN_CREATED', 'SYSTEM_FAIL', 'FINISHED', 'SYSTEM_FAILURE'),
    ('RUN_CREATED', 'CANCEL', 'FINISHED', 'CANCELED'),
    ('DELAYED', 'ENQUEUE', 'QUEUED', 'QUEUED'),
    ('DELAYED', 'RESCHEDULE', 'DELAYED', 'DELAYED'),
    ('DELAYED', 'CANCEL', 'FINISHED', 'CANCELED'),
    ('QUEUED', 'DEQUEUE', 'PENDING_EXECUTING', 'DEQUEUED'),
    ('QUEUED', 'AWAIT_VERSION', 'RUN_CREATED', 'WAITING_FOR_DEPLOY'),
    ('QUEUED', 'EXPIRE', 'FINISHED', 'EXPIRED'),
    ('QUEUED', 'SYSTEM_FAIL', 'FINISHED', 'SYSTEM_FAILURE'),
    ('QUEUED', 'CANCEL', 'FINISHED', 'CANCELED'),
    ('WAITING_TO_RETRY', 'ENQUEUE', 'QUEUED', NULL),
    ('WAITING_TO_RETRY', 'CANCEL', 'FINISHED', 'CANCELED'),
    ('PENDING_EXECUTING', 'START', 'EXECUTING', 'EXECUTING'),
    ('PENDING_EXECUTING', 'CONTINUE', 'EXECUTING', 'EXECUTING'),
    ('PENDING_EXECUTING', 'SYSTEM_FAIL', 'FINISHED', 'SYSTEM_FAILURE'),
    ('PENDING_EXECUTING', 'HAND_BACK', 'QUEUED', 'QUEUED'),
    ('PENDING_EXECUTING', 'CANCEL', 'PENDING_CANCEL', 'CANCELED'),
    ('EXECUTING', 'BLOCK', 'EXECUTING_WITH_WAITPOINTS', 'FROZEN'),
    ('EXECUTING', 'COMPLETE', 'FINISHED', 'COMPLETED'),
    ('EXECUTING', 'FAIL', 'FINISHED', 'FAILED'),
    ('EXECUTING', 'CRASH', 'FINISHED', 'CRASHED'),
    ('EXECUTING', 'TIME_OUT', 'FINISHED', 'TIMED_OUT'),
    ('EXECUTING', 'INTERRUPT', 'FINISHED', 'INTERRUPTED'),
    ('EXECUTING', 'SYSTEM_FAIL', 'FINISHED', 'SYSTEM_FAILURE'),
    ('EXECUTING', 'RETRY', 'WAITING_TO_RETRY', 'REATTEMPTING'),
    ('EXECUTING', 'HAND_BACK', 'QUEUED', 'QUEUED'),
    ('EXECUTING', 'CANCEL', 'PENDING_CANCEL', 'CANCELED'),
    ('EXECUTING_WITH_WAITPOINTS', 'BLOCK', 'EXECUTING_WITH_WAITPOINTS', 'FROZEN'),
    ('EXECUTING_WITH_WAITPOINTS', 'CONTINUE', 'EXECUTING', 'EXECUTING'),
    ('EXECUTING_WITH_WAITPOINTS', 'UNBLOCK', 'QUEUED_EXECUTING', 'FROZEN'),
    ('EXECUTING_WITH_WAITPOINTS', 'SUSPEND', 'SUSPENDED', 'FROZEN'),
    ('EXECUTING_WITH_WAITPOINTS', 'COMPLETE', 'FINISHED', 'COMPLETED'),
    ('EXECUTING_WITH_WAITPOINTS', 'FAIL', 'FINISHED', 'FAILED'),
    ('EXECUTING_WITH_WAITPOINTS', 'CRASH', 'FINISHED', 'CRASHED'),
    ('EXECUTING_WITH_WAITPOINTS', 'TIME_OUT', 'FINISHED', 'TIMED_OUT'),
    ('EXECUTING_WITH_WAITPOINTS', 'INTERRUPT', 'FINISHED', 'INTERRUPTED'),
    ('EXECUTING_WITH_WAITPOINTS', 'SYSTEM_FAIL', 'FINISHED', 'SYSTEM_FAILURE'),
    ('EXECUTING_WITH_WAITPOINTS', 'RETRY', 'WAITING_TO_RETRY', 'REATTEMPTING'),
    ('EXECUTING_WITH_WAITPOINTS', 'HAND_BACK', 'QUEUED', 'QUEUED'),
    ('EXECUTING_WITH_WAITPOINTS', 'CANCEL', 'PENDING_CANCEL', 'CANCELED'),
    ('QUEUED_EXECUTING', 'CONTINUE', 'EXECUTING', 'EXECUTING'),
    ('QUEUED_EXECUTING', 'SUSPEND', 'QUEUED', 'FROZEN'),
    ('QUEUED_EXECUTING', 'COMPLETE', 'FINISHED', 'COMPLETED'),
    ('QUEUED_EXECUTING', 'FAIL', 'FINISHED', 'FAILED'),
    ('QUEUED_EXECUTING', 'CRASH', 'FINISHED', 'CRASHED'),
    ('QUEUED_EXECUTING', 'TIME_OUT', 'FINISHED', 'TIMED_OUT'),
    ('QUEUED_EXECUTING', 'INTERRUPT', 'FINISHED', 'INTERRUPTED'),
    ('QUEUED_EXECUTING', 'SYSTEM_FAIL', 'FINISHED', 'SYSTEM_FAILURE'),
    ('QUEUED_EXECUTING', 'RETRY', 'WAITING_TO_RETRY', 'REATTEMPTING'),
    ('QUEUED_EXECUTING', 'HAND_BACK', 'QUEUED', 'QUEUED'),
    ('QUEUED_EXECUTING', 'CANCEL', 'PENDING_CANCEL', 'CANCELED'),
    ('SUSPENDED', 'UNBLOCK', 'QUEUED', 'FROZEN'),
    ('SUSPENDED', 'SYSTEM_FAIL', 'FINISHED', 'SYSTEM_FAILURE'),
    ('SUSPENDED', 'CANCEL', 'FINISHED', 'CANCELED'),
    ('PENDING_CANCEL', 'CONFIRM_CANCEL', 'FINISHED', 'CANCELED');

-- No cache: the ids of a run's snapshots say their order.
CREATE SEQUENCE run_snapshots_id_seq;

-- No foreign keys from here to environments, queues and versions: each trigger and dequeue would lock
-- the same few rows over there, and none of those is ever deleted while it has runs.
CREATE TABLE runs (
    id text COLLATE "C" PRIMARY KEY,
    environment_id bigint NOT NULL,
    task_id text COLLATE "C" NOT NULL,
    -- The engine writes what happened; the trigger below writes the statuses and the snapshot.
    event text NOT NULL DEFAULT 'TRIGGER',
    execution_status text NOT NULL CHECK (execution_status IN (
        'RUN_CREATED', 'DELAYED', 'QUEUED', 'WAITING_TO_RETRY', 'PENDING_EXECUTING', 'EXECUTING',
        'EXECUTING_WITH_WAITPOINTS', 'QUEUED_EXECUTING', 'SUSPENDED', 'PENDING_CANCEL', 'FINISHED'
    )),
    status text NOT NULL CHECK (status IN (
        'WAITING_FOR_DEPLOY', 'DELAYED', 'QUEUED', 'DEQUEUED', 'EXECUTING', 'FROZEN',
        'REATTEMPTING', 'COMPLETED', 'CANCELED', 'FAILED', 'CRASHED', 'INTERRUPTED',
        'SYSTEM_FAILURE', 'EXPIRED', 'TIMED_OUT'
    )),
    snapshot_id bigint NOT NULL,
    -- The snapshot of the dequeue by which a worker holds the run: what fences its reports.
    lease_id bigint,
    worker_id bigint,
    dequeue_request_id text,
    queue_id bigint NOT NULL,
    subqueue_id bigint NOT NULL,
    concurrency_key text,
    order_at timestamptz NOT NULL,
    priority_seconds double precision NOT NULL DEFAULT 0,
    -- The version that runs it, from its first dequeue on, or that it was triggered for.
    background_worker_id bigint,
    is_version_locked boolean NOT NULL DEFAULT false,
    payload text,
    payload_type text NOT NULL,
    context jsonb,
    metadata jsonb,
    tags text[] NOT NULL DEFAULT '{}',
    is_test boolean NOT NULL DEFAULT false,
    idempotency_key text,
    max_attempts integer,
    attempt_number integer NOT NULL DEFAULT 0,
    -- Attempts that ended because a worker gave the run back; they don't count against max_attempts.
    handed_back integer NOT NULL DEFAULT 0,
    max_duration integer,
    machine text,
    delayed_until timestamptz,
    ttl text,
    ttl_seconds integer,
    output text,
    output_type text,
    error jsonb,
    trace_context jsonb,
    parent_run_id text COLLATE "C",
    root_run_id text COLLATE "C",
    batch_id text COLLATE "C",
    depth integer NOT NULL DEFAULT 0,
    trigger_function text NOT NULL DEFAULT 'trigger',
    duration_ms bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    queued_at timestamptz,
    started_at timestamptz,
    finished_at timestamptz,
    expired_at timestamptz,
    CHECK ((lease_id IS NULL) = (worker_id IS NULL)),
    CHECK ((lease_id IS NOT NULL) = (execution_status IN (
        'PENDING_EXECUTING', 'EXECUTING', 'EXECUTING_WITH_WAITPOINTS', 'QUEUED_EXECUTING',
        'PENDING_CANCEL'
    ))),
    CHECK (execution_status <> 'FINISHED' OR finished_at IS NOT NULL)
) WITH (
    fillfactor = 75, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05
);
CREATE INDEX runs_by_time ON runs (environment_id, id);
CREATE INDEX runs_by_task ON runs (environment_id, task_id, id);
CREATE INDEX runs_by_status ON runs (environment_id, status, id);
CREATE INDEX runs_by_tag ON runs USING gin (tags) WHERE tags <> '{}';
CREATE INDEX runs_held ON runs (worker_id, dequeue_request_id) WHERE worker_id IS NOT NULL;
CREATE INDEX runs_by_parent ON runs (parent_run_id) WHERE parent_run_id IS NOT NULL;
CREATE INDEX runs_waiting_for_deploy ON runs (environment_id, task_id)
    WHERE execution_status = 'RUN_CREATED';

-- The history of a run's statuses. No foreign key: runs are deleted with their snapshots in batches.
CREATE TABLE run_snapshots (
    id bigint PRIMARY KEY,
    run_id text COLLATE "C" NOT NULL,
    event text NOT NULL,
    execution_status text NOT NULL,
    status text NOT NULL,
    attempt_number integer NOT NULL,
    worker_id bigint,
    created_at timestamptz NOT NULL
);
CREATE INDEX ON run_snapshots (run_id, id);

CREATE FUNCTION apply_run_event() RETURNS trigger LANGUAGE plpgsql AS $$
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
    END IF;
    RETURN NEW;
END
$$;

-- After the row is there: an insert may still find that another one was first (ON CONFLICT).
CREATE FUNCTION record_snapshot() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO run_snapshots
        (id, run_id, event, execution_status, status, attempt_number, worker_id, created_at)
    VALUES (
        NEW.snapshot_id, NEW.id, NEW.event, NEW.execution_status, NEW.status, NEW.attempt_number,
        CASE TG_OP WHEN 'INSERT' THEN NULL ELSE coalesce(NEW.worker_id, OLD.worker_id) END,
        clock_timestamp()
    );
    RETURN NULL;
END
$$;

CREATE TRIGGER apply_event_of_new_run BEFORE INSERT ON runs
    FOR EACH ROW EXECUTE FUNCTION apply_run_event();
CREATE TRIGGER apply_event BEFORE UPDATE OF event ON runs
    FOR EACH ROW EXECUTE FUNCTION apply_run_event();
CREATE TRIGGER record_snapshot_of_new_run AFTER INSERT ON runs
    FOR EACH ROW EXECUTE FUNCTION record_snapshot();
CREATE TRIGGER record_snapshot AFTER UPDATE OF event ON runs
    FOR EACH ROW EXECUTE FUNCTION record_snapshot();

-- Slots are counted where leases change hands, so that no statement can forget to. The environment's
-- row is locked before those of subqueues, which are locked in the order of their ids.
CREATE FUNCTION count_slots() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    subqueue_ids bigint[];
    environment_ids bigint[];
    deltas integer[];
BEGIN
    SELECT array_agg(d.subqueue_id ORDER BY d.subqueue_id),
        array_agg(d.environment_id ORDER BY d.subqueue_id),
        array_agg(d.runs ORDER BY d.subqueue_id)
    INTO subqueue_ids, environment_ids, deltas
    FROM (
        SELECT held.environment_id, held.subqueue_id, sum(held.runs)::integer AS runs
        FROM (
            SELECT environment_id, subqueue_id, 1 AS runs FROM after WHERE lease_id IS NOT NULL
            UNION ALL
            SELECT environment_id, subqueue_id, -1 FROM before WHERE lease_id IS NOT NULL
        ) held
        GROUP BY held.environment_id, held.subqueue_id
        HAVING sum(held.runs) <> 0
    ) d;
    IF subqueue_ids IS NULL THEN
        RETURN NULL;
    END IF;
    UPDATE environment_concurrency c SET running = c.running + d.runs
    FROM (
        SELECT u.environment_id, sum(u.runs)::integer AS runs
        FROM unnest(environment_ids, deltas) AS u (environment_id, runs)
        GROUP BY u.environment_id
    ) d
    WHERE c.environment_id = d.environment_id;
    FOR i IN 1 .. cardinality(subqueue_ids) LOOP
        UPDATE subqueues s SET running = s.running + deltas[i] WHERE s.id = subqueue_ids[i];
    END LOOP;
    RETURN NULL;
END
$$;

CREATE TRIGGER count_slots AFTER UPDATE ON runs
    REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION count_slots();

-- What waits in queues: a narrow table of its own, so that neither a long backlog nor finished runs
-- slow a dequeue. A row is changed only by who holds the lock of its run.
CREATE TABLE queued_runs (
    run_id text COLLATE "C" PRIMARY KEY REFERENCES runs ON DELETE CASCADE,
    subqueue_id bigint NOT NULL,
    -- 0: whichever version is current.
    background_worker_id bigint NOT NULL,
    order_at timestamptz NOT NULL,
    expires_at timestamptz
) WITH (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX queued_runs_in_order ON queued_runs
    (subqueue_id, background_worker_id, order_at, run_id);
CREATE INDEX queued_runs_that_expire ON queued_runs (expires_at) WHERE expires_at IS NOT NULL;

-- Runs that are to be enqueued at an instant: delays and backoffs.
CREATE TABLE run_timers (
    run_id text COLLATE "C" PRIMARY KEY REFERENCES runs ON DELETE CASCADE,
    due_at timestamptz NOT NULL
);
CREATE INDEX ON run_timers (due_at);

CREATE TABLE run_attempts (
    run_id text COLLATE "C" NOT NULL REFERENCES runs ON DELETE CASCADE,
    number integer NOT NULL,
    status text NOT NULL CHECK (status IN ('EXECUTING', 'COMPLETED', 'FAILED', 'CANCELED')),
    background_worker_id bigint,
    started_at timestamptz NOT NULL,
    completed_at timestamptz,
    error jsonb,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (run_id, number),
    CHECK ((status = 'EXECUTING') = (completed_at IS NULL))
) WITH (fillfactor = 80);

CREATE TABLE run_logs (
    run_id text COLLATE "C" NOT NULL,
    attempt_number integer NOT NULL,
    seq integer NOT NULL,
    logged_at timestamptz NOT NULL,
    level text NOT NULL,
    message text NOT NULL,
    attributes jsonb,
    PRIMARY KEY (run_id, attempt_number, seq)
);

CREATE TABLE idempotency_keys (
    environment_id bigint NOT NULL,
    task_id text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    run_id text COLLATE "C" NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (environment_id, task_id, key)
);
CREATE INDEX ON idempotency_keys (expires_at);

-- Supervisors. What one holds is taken from it when its lease ends.
CREATE TABLE workers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    public_id text COLLATE "C" NOT NULL UNIQUE,
    environment_id bigint NOT NULL REFERENCES environments,
    name text NOT NULL,
    capacity integer NOT NULL,
    package_version text NOT NULL,
    lease_seconds double precision NOT NULL CHECK (lease_seconds > 0),
    connected_at timestamptz NOT NULL,
    lease_expires_at timestamptz NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX ON workers (lease_expires_at);
