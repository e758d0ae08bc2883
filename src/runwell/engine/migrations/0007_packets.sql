-- Payloads and outputs that are too large for a row of `runs`, and lie in the object store.

-- One row for each object, from before it is uploaded until it has been deleted. A run refers to it
-- by its path (`payload` or `output` with the type application/store); several may refer to one.
CREATE TABLE packets (
    environment_id bigint NOT NULL,
    path text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL,
    -- When to look whether a run refers to it; null while one is known to.
    expires_at timestamptz,
    -- The object may be gone already.
    is_deleting boolean NOT NULL DEFAULT false,
    PRIMARY KEY (environment_id, path)
);
CREATE INDEX packets_that_expire ON packets (expires_at) WHERE expires_at IS NOT NULL;

-- Who refers to a packet. Only runs with large payloads or outputs are in these.
CREATE INDEX runs_by_payload_packet ON runs (environment_id, payload)
    WHERE payload_type = 'application/store';
CREATE INDEX runs_by_output_packet ON runs (environment_id, output)
    WHERE output_type = 'application/store';

-- What signs URLs of this server: all servers of a database accept each other's.
CREATE TABLE signing_keys (
    name text PRIMARY KEY,
    secret text NOT NULL
);
INSERT INTO signing_keys (name, secret)
VALUES ('packets', gen_random_uuid()::text || gen_random_uuid()::text);
