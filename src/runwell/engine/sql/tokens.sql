-- name: insert_token
-- A new token; no row comes back when its idempotency key has one.
INSERT INTO waitpoints (
    id, environment_id, type, due_at, tags, idempotency_key, idempotency_key_expires_at,
    callback_secret, event_name, event_filter, created_at
) VALUES (
    :id, :environment_id, 'MANUAL', :due_at, :tags::text[], :idempotency_key,
    :idempotency_key_expires_at, :callback_secret, :event_name, :event_filter::jsonb, :now
)
ON CONFLICT (environment_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
RETURNING id;

-- name: free_expired_key
-- The key of a token whose lifetime has passed may name another one.
UPDATE waitpoints SET idempotency_key = NULL
WHERE environment_id = :environment_id AND idempotency_key = :idempotency_key
    AND idempotency_key_expires_at <= :now;

-- name: find_token_of_key
-- The token that an idempotency key names.
SELECT id, callback_secret FROM waitpoints
WHERE environment_id = :environment_id AND idempotency_key = :idempotency_key;

-- name: find_token
-- A token.
SELECT * FROM waitpoints
WHERE id = :id AND environment_id = :environment_id AND type = 'MANUAL';

-- name: find_token_by_secret
-- The token that a URL names.
SELECT id, environment_id, status FROM waitpoints
WHERE id = :id AND type = 'MANUAL' AND callback_secret = :callback_secret;

-- name: list_older_tokens
-- Tokens, the newest first, from behind one on.
SELECT * FROM waitpoints
WHERE environment_id = :environment_id AND type = 'MANUAL'
    AND (:after::text IS NULL OR id < :after)
    AND (:statuses::text[] IS NULL OR CASE WHEN status = 'PENDING' THEN 'WAITING'
        WHEN is_error THEN 'TIMED_OUT' ELSE 'COMPLETED' END = ANY(:statuses))
    AND (:tags::text[] IS NULL OR tags && :tags)
ORDER BY id DESC LIMIT :most;

-- name: list_newer_tokens
-- Tokens, the nearest first, from before one on.
SELECT * FROM waitpoints
WHERE environment_id = :environment_id AND type = 'MANUAL' AND id > :before
    AND (:statuses::text[] IS NULL OR CASE WHEN status = 'PENDING' THEN 'WAITING'
        WHEN is_error THEN 'TIMED_OUT' ELSE 'COMPLETED' END = ANY(:statuses))
    AND (:tags::text[] IS NULL OR tags && :tags)
ORDER BY id LIMIT :most;

-- name: complete_tokens
-- These tokens are complete, unless they were before.
UPDATE waitpoints SET status = 'COMPLETED', completed_at = :now, output = :output,
    output_type = :output_type
WHERE id IN (
    SELECT id FROM waitpoints
    WHERE id = ANY(:ids::text[]) AND status = 'PENDING' ORDER BY id FOR NO KEY UPDATE
) RETURNING id;

-- name: list_tokens_of_event
-- Tokens that wait for an event of this name, some at a time.
SELECT id, event_filter FROM waitpoints
WHERE environment_id = :environment_id AND event_name = :event_name AND status = 'PENDING'
    AND id > :after
ORDER BY id LIMIT :most;
