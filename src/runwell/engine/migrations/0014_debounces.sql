-- Debouncing: for a task and a key, the delayed run that triggers push further. The row is the lock
-- that such triggers take first, one after the other.
CREATE TABLE debounces (
    environment_id bigint NOT NULL,
    task_id text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    -- May have been enqueued since, or never have been made: then the next trigger makes another.
    run_id text COLLATE "C" NOT NULL,
    due_at timestamptz NOT NULL,
    -- No trigger pushes the run further than to here.
    latest_at timestamptz,
    -- The last requests that pushed it: one that is sent again changes nothing.
    request_keys text[] COLLATE "C" NOT NULL DEFAULT '{}',
    PRIMARY KEY (environment_id, task_id, key)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 500);
CREATE INDEX ON debounces (due_at);
