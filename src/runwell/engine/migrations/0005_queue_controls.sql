-- Queues that are paused or have another limit than the code says, and the same for environments.

ALTER TABLE queues
    ADD COLUMN concurrency_limit_override integer
        CHECK (concurrency_limit_override BETWEEN 0 AND 100000),
    ADD COLUMN overridden_at timestamptz,
    ADD CHECK ((concurrency_limit_override IS NULL) = (overridden_at IS NULL));

-- The subqueues of a queue that have anything at all: a queue may have 100,000 keys that have nothing.
CREATE INDEX subqueues_in_use ON subqueues (queue_id) WHERE has_queued OR running > 0;

ALTER TABLE environments ADD COLUMN is_paused boolean NOT NULL DEFAULT false;

-- Copies beside what they limit: a dequeue that waited for this row's lock sees them as they are then.
ALTER TABLE environment_concurrency
    ADD COLUMN concurrency_limit integer,
    ADD COLUMN is_paused boolean NOT NULL DEFAULT false;
UPDATE environment_concurrency c SET concurrency_limit = e.concurrency_limit
FROM environments e WHERE e.id = c.environment_id;
ALTER TABLE environment_concurrency ALTER COLUMN concurrency_limit SET NOT NULL;

CREATE FUNCTION copy_environment_limits() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE environment_concurrency
    SET concurrency_limit = NEW.concurrency_limit, is_paused = NEW.is_paused
    WHERE environment_id = NEW.id;
    RETURN NULL;
END
$$;
CREATE TRIGGER copy_environment_limits AFTER UPDATE OF concurrency_limit, is_paused ON environments
    FOR EACH ROW EXECUTE FUNCTION copy_environment_limits();
