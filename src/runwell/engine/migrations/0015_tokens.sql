-- Tokens: waitpoints that somebody completes, by the API, by their URL, or by an event.
ALTER TABLE waitpoints
    ADD COLUMN tags text[] NOT NULL DEFAULT '{}',
    ADD COLUMN idempotency_key text COLLATE "C",
    ADD COLUMN idempotency_key_expires_at timestamptz,
    -- What the URL of a token has that its id hasn't: who knows only the id can't complete it.
    ADD COLUMN callback_secret text COLLATE "C",
    ADD COLUMN event_name text COLLATE "C",
    ADD COLUMN event_filter jsonb;
CREATE UNIQUE INDEX waitpoints_by_key ON waitpoints (environment_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX waitpoints_tokens ON waitpoints (environment_id, id) WHERE type = 'MANUAL';
CREATE INDEX waitpoints_of_events ON waitpoints (environment_id, event_name, id)
    WHERE status = 'PENDING' AND event_name IS NOT NULL;
