-- Batches: runs triggered together. Whether one is complete is not counted but looked up: the index
-- of its runs that go on says it at once, however many have ended.

CREATE TABLE batches (
    id text COLLATE "C" PRIMARY KEY,
    environment_id bigint NOT NULL,
    run_count integer NOT NULL CHECK (run_count > 0),
    -- The name of the request that made it: sent again, it is the same batch.
    request_key text COLLATE "C",
    idempotency_key text COLLATE "C",
    -- The key is taken from the batch when it has expired and another batch wants it.
    key_expires_at timestamptz,
    created_at timestamptz NOT NULL,
    CHECK ((idempotency_key IS NULL) = (key_expires_at IS NULL))
);
CREATE UNIQUE INDEX batches_by_request ON batches (environment_id, request_key)
    WHERE request_key IS NOT NULL;
CREATE UNIQUE INDEX batches_by_key ON batches (environment_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;

-- The run of each item, also where an idempotency key had it already: such a run may belong to
-- another batch, or to none, and be the run of several items.
CREATE TABLE batch_items (
    batch_id text COLLATE "C" NOT NULL REFERENCES batches ON DELETE CASCADE,
    index integer NOT NULL CHECK (index >= 0),
    run_id text COLLATE "C" NOT NULL,
    is_cached boolean NOT NULL,
    PRIMARY KEY (batch_id, index)
);
-- Which batches wait for a run that is not of theirs, and for which.
CREATE INDEX batch_items_cached ON batch_items (run_id) WHERE is_cached;
CREATE INDEX batch_items_cached_by_batch ON batch_items (batch_id) WHERE is_cached;

CREATE INDEX runs_of_open_batches ON runs (batch_id)
    WHERE batch_id IS NOT NULL AND execution_status <> 'FINISHED';
