-- People, the organisations they are members of, and their personal access tokens.

CREATE TABLE users (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    public_id text COLLATE "C" NOT NULL UNIQUE,
    email text NOT NULL CHECK (email = lower(email)) UNIQUE,
    created_at timestamptz NOT NULL
);

CREATE TABLE organization_members (
    organization_id bigint NOT NULL REFERENCES organizations,
    user_id bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    role text NOT NULL DEFAULT 'member' CHECK (role IN ('owner', 'member', 'viewer')),
    created_at timestamptz NOT NULL,
    PRIMARY KEY (organization_id, user_id)
);
CREATE INDEX ON organization_members (user_id);

-- Shown once, kept as a hash.
CREATE TABLE personal_access_tokens (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    public_id text COLLATE "C" NOT NULL UNIQUE,
    user_id bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    name text NOT NULL,
    token_hash text COLLATE "C" NOT NULL UNIQUE,
    obfuscated text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz
);
CREATE INDEX ON personal_access_tokens (user_id);

-- What the token of the server's own machine is made of.
INSERT INTO signing_keys (name, secret)
VALUES ('local_token', gen_random_uuid()::text || gen_random_uuid()::text);
