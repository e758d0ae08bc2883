-- Keys by their hash, one-time tokens that were used, and people with their personal access tokens.

-- What a key is found by: how long a comparison takes says nothing about the key then.
ALTER TABLE api_keys ADD COLUMN secret_hash text COLLATE "C"
    GENERATED ALWAYS AS (encode(sha256(secret_key::bytea), 'hex')) STORED;
CREATE UNIQUE INDEX api_keys_by_hash ON api_keys (secret_hash);

-- One-time public tokens that were used, until they would have ended anyway.
CREATE TABLE used_tokens (
    token_hash text COLLATE "C" PRIMARY KEY,
    environment_id bigint NOT NULL REFERENCES environments,
    -- The request that used it may be sent again.
    request_key text,
    expires_at timestamptz NOT NULL
);
CREATE INDEX ON used_tokens (expires_at);
