-- Schedules: cron rules attached to tasks, and the runs that their ticks triggered.

CREATE TABLE schedules (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    public_id text COLLATE "C" NOT NULL UNIQUE,
    environment_id bigint NOT NULL REFERENCES environments,
    -- From the task's code, or created by a call.
    type text NOT NULL CHECK (type IN ('DECLARATIVE', 'IMPERATIVE')),
    task_id text COLLATE "C" NOT NULL,
    deduplication_key text COLLATE "C",
    external_id text,
    cron text NOT NULL,
    timezone text NOT NULL,
    missed_ticks text NOT NULL CHECK (missed_ticks IN ('skip', 'catch-up')),
    spread_seconds integer NOT NULL CHECK (spread_seconds BETWEEN 0 AND 86400),
    is_active boolean NOT NULL,
    -- The next tick as the pattern has it, and when its run is triggered: later by the schedule's
    -- part of its spread. Null when it isn't active.
    next_tick_at timestamptz,
    due_at timestamptz,
    -- The last tick that triggered a run.
    last_tick_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CHECK ((next_tick_at IS NULL) = (due_at IS NULL)),
    CHECK (is_active OR due_at IS NULL),
    CHECK (due_at >= next_tick_at),
    CHECK (type = 'IMPERATIVE' OR deduplication_key IS NULL),
    UNIQUE (environment_id, deduplication_key)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
CREATE UNIQUE INDEX schedules_one_declared ON schedules (environment_id, task_id)
    WHERE type = 'DECLARATIVE';
CREATE INDEX schedules_due ON schedules (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX schedules_by_age ON schedules (environment_id, id);

-- The schedule that triggered a run, and for which of its ticks: one run for each, whoever comes
-- first.
ALTER TABLE runs
    ADD COLUMN schedule_id text COLLATE "C",
    ADD COLUMN tick_at timestamptz,
    ADD CHECK ((schedule_id IS NULL) = (tick_at IS NULL));
CREATE UNIQUE INDEX runs_one_per_tick ON runs (schedule_id, tick_at) WHERE schedule_id IS NOT NULL;

-- Whether a task takes schedules, and the one that its code declares.
ALTER TABLE background_worker_tasks
    ADD COLUMN is_scheduled boolean NOT NULL DEFAULT false,
    ADD COLUMN schedule jsonb;
