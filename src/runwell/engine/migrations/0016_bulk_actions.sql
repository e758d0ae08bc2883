-- Bulk actions: something that is done to many runs, in steps. See engine/bulk_actions.py.
CREATE TABLE bulk_actions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    public_id text COLLATE "C" NOT NULL UNIQUE,
    environment_id bigint NOT NULL REFERENCES environments,
    action text NOT NULL CHECK (action IN ('CANCEL', 'REPLAY')),
    status text NOT NULL DEFAULT 'PENDING' CHECK (status IN ('PENDING', 'COMPLETED', 'ABORTED')),
    filters jsonb NOT NULL,
    -- Runs by their ids; null: those that pass the filters.
    run_ids text[],
    -- The runs from here on, the newest first, have been chosen.
    after_id text COLLATE "C",
    total integer NOT NULL,
    succeeded integer NOT NULL DEFAULT 0,
    skipped integer NOT NULL DEFAULT 0,
    failed integer NOT NULL DEFAULT 0,
    -- A server works on it until then, unless it is done before.
    claimed_until timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    completed_at timestamptz,
    CHECK ((status = 'PENDING') = (completed_at IS NULL))
);
CREATE INDEX bulk_actions_to_do ON bulk_actions (claimed_until) WHERE status = 'PENDING';
CREATE INDEX ON bulk_actions (environment_id, id);

-- The runs that were chosen. No foreign keys to runs: these are deleted in batches of their own.
CREATE TABLE bulk_action_items (
    bulk_action_id bigint NOT NULL REFERENCES bulk_actions ON DELETE CASCADE,
    run_id text COLLATE "C" NOT NULL,
    status text NOT NULL CHECK (status IN ('PENDING', 'SUCCEEDED', 'SKIPPED', 'FAILED')),
    -- A replay's id is made before the replay is: done again after a crash, it is the same run.
    new_run_id text COLLATE "C",
    error text,
    PRIMARY KEY (bulk_action_id, run_id)
);
CREATE INDEX bulk_action_items_to_do ON bulk_action_items (bulk_action_id, run_id)
    WHERE status = 'PENDING';
CREATE INDEX ON bulk_action_items (bulk_action_id, new_run_id) WHERE new_run_id IS NOT NULL;
