-- Changes of metadata that must not be applied twice: updates of a run's worker by their number under
-- its lease, requests by their key. See engine/run_metadata.py.
ALTER TABLE runs
    ADD COLUMN metadata_lease_id bigint NOT NULL DEFAULT 0,
    ADD COLUMN metadata_seq integer NOT NULL DEFAULT 0;

CREATE TABLE run_metadata_keys (
    run_id text COLLATE "C" NOT NULL REFERENCES runs ON DELETE CASCADE,
    key text COLLATE "C" NOT NULL,
    number integer NOT NULL,
    PRIMARY KEY (run_id, key)
);
