-- name: list_signing_keys
-- The living keys of an environment, the newest first.
SELECT k.environment_id, k.secret_key, k.created_at, k.expires_at
FROM environments e
JOIN api_keys k ON k.environment_id = e.id
WHERE e.public_id = :public_id AND (k.expires_at IS NULL OR k.expires_at > :now)
ORDER BY k.created_at DESC, k.id DESC;

-- name: lock_environment
-- One rotation of an environment's keys at a time.
SELECT FROM environments WHERE id = :environment_id FOR NO KEY UPDATE;

-- name: end_keys
-- Let the keys of an environment end, those that would go on for longer.
UPDATE api_keys SET expires_at = :ends_at
WHERE environment_id = :environment_id AND (expires_at IS NULL OR expires_at > :ends_at)
    AND created_at <= :now;

-- name: count_keys
-- How many keys of an environment have not ended.
SELECT count(*)::integer FROM api_keys
WHERE environment_id = :environment_id AND (expires_at IS NULL OR expires_at > :now);

-- name: insert_key
-- A new key of an environment.
INSERT INTO api_keys (environment_id, secret_key, created_at)
VALUES (:environment_id, :secret_key, :now);

-- name: use_token
-- Use a one-time token. No row comes back when another request has used it; one that is using it is
-- waited for.
INSERT INTO used_tokens AS u (token_hash, environment_id, request_key, expires_at)
VALUES (:token_hash, :environment_id, :request_key, :expires_at)
ON CONFLICT (token_hash) DO UPDATE SET request_key = excluded.request_key
    WHERE u.request_key = excluded.request_key
RETURNING true;

-- name: delete_used_tokens
-- One-time tokens that have ended.
DELETE FROM used_tokens WHERE token_hash IN (
    SELECT token_hash FROM used_tokens
    WHERE expires_at <= :now LIMIT :most FOR UPDATE SKIP LOCKED
);
