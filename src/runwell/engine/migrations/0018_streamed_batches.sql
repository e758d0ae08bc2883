-- Batches whose items come in after them, and triggers whose request doesn't name its run.

-- When the last item was there; null while items come in.
ALTER TABLE batches ADD COLUMN sealed_at timestamptz;
UPDATE batches SET sealed_at = created_at;
ALTER TABLE batches
    -- What the runs of items that come in later are children of, and whether it waits for them.
    ADD COLUMN parent_run_id text COLLATE "C",
    ADD COLUMN is_awaited boolean NOT NULL DEFAULT false;
CREATE INDEX batches_by_age ON batches (created_at);

-- Items that came in one by one and can't be runs: an option is wrong, a version isn't there.
CREATE TABLE batch_failures (
    batch_id text COLLATE "C" NOT NULL REFERENCES batches ON DELETE CASCADE,
    index integer NOT NULL CHECK (index >= 0),
    task_id text COLLATE "C" NOT NULL,
    -- As it would have been answered to a trigger.
    status integer NOT NULL,
    message text NOT NULL,
    PRIMARY KEY (batch_id, index)
);

-- The runs of requests whose key isn't a recent UUID version 7, of which the run's id is made.
CREATE TABLE trigger_requests (
    environment_id bigint NOT NULL,
    request_key text COLLATE "C" NOT NULL,
    run_id text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (environment_id, request_key)
);
CREATE INDEX ON trigger_requests (created_at);
