-- Subqueues of concurrency keys that nobody uses any more are deleted.

-- The runs that keep one without being counted in it: they come back to it later. An ordinary run is never
-- in this index.
CREATE INDEX runs_that_keep_subqueues ON runs (subqueue_id)
    WHERE execution_status IN ('RUN_CREATED', 'DELAYED', 'WAITING_TO_RETRY', 'SUSPENDED')
        OR released_slots = 2;

-- When something last happened to a run, whatever was written to it since: metadata and tags are not
-- events.
ALTER TABLE runs ADD COLUMN event_at timestamptz;
UPDATE runs SET event_at = updated_at;

-- The same as before, with the instant.
CREATE OR REPLACE FUNCTION apply_run_event() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    moved run_transitions%ROWTYPE;
BEGIN
    IF TG_OP = 'INSERT' THEN
        SELECT * INTO moved FROM run_transitions
        WHERE from_status = '' AND event = 'TRIGGER' AND to_status = NEW.execution_status;
    ELSE
        SELECT * INTO moved FROM run_transitions
        WHERE from_status = OLD.execution_status AND event = NEW.event;
    END IF;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'run % is %: % can''t happen to it there', NEW.id,
            CASE TG_OP WHEN 'INSERT' THEN 'new' ELSE OLD.execution_status END, NEW.event
            USING ERRCODE = 'RW001';
    END IF;
    NEW.execution_status := moved.to_status;
    NEW.status := coalesce(moved.run_status, NEW.status);
    NEW.snapshot_id := nextval('run_snapshots_id_seq');
    NEW.event_at := NEW.updated_at;
    IF NEW.event = 'DEQUEUE' THEN
        NEW.lease_id := NEW.snapshot_id;
    ELSIF NEW.execution_status NOT IN (
        'PENDING_EXECUTING', 'EXECUTING', 'EXECUTING_WITH_WAITPOINTS', 'QUEUED_EXECUTING',
        'PENDING_CANCEL'
    ) THEN
        NEW.lease_id := NULL;
        NEW.worker_id := NULL;
        NEW.dequeue_request_id := NULL;
        NEW.released_slots := 0;
    END IF;
    RETURN NEW;
END
$$;

-- Whether the end of a run, or the slot that it frees, lets another one go on. A function, so that it sees
-- what was committed while the run's lock was waited for: a parent begins to wait under that lock.
CREATE FUNCTION is_awaited(awaited_id text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RETURN EXISTS (SELECT FROM waitpoints p WHERE p.run_id = awaited_id)
        OR EXISTS (SELECT FROM resuming_runs);
END
$$;
