-- Environment variables of environments, encrypted.

CREATE TABLE environment_variables (
    environment_id bigint NOT NULL REFERENCES environments,
    name text COLLATE "C" NOT NULL CHECK (name ~ '^[A-Za-z0-9_]+$'),
    -- By a key that the server has from its settings, or without one from signing_keys.
    encrypted_value bytea NOT NULL,
    -- Its value is shown to nobody but runs.
    is_secret boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (environment_id, name)
);

-- Counts their changes: a worker that has seen another number fetches them again.
ALTER TABLE environments ADD COLUMN variables_version bigint NOT NULL DEFAULT 0;

INSERT INTO signing_keys (name, secret)
VALUES ('variables', gen_random_uuid()::text || gen_random_uuid()::text);
