-- Realtime: which transaction changed a run last, and what changed without a snapshot. See
-- engine/adr/0006-realtime.md.

-- Runs that were there before count as known to everybody; new ones name their transaction.
ALTER TABLE runs ADD COLUMN changed_xid xid8 NOT NULL DEFAULT '3';
ALTER TABLE runs ALTER COLUMN changed_xid SET DEFAULT pg_current_xact_id();

-- Changes of runs that are no events. Their ids come from the sequence of the snapshots: both together
-- are the log of what changed.
CREATE TABLE run_changes (
    id bigint PRIMARY KEY,
    run_id text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);

-- The same as before, and the transaction that changed the run. Its number is taken before that of the
-- snapshot: whoever sees a later snapshot knows that this transaction had begun.
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
    NEW.changed_xid := pg_current_xact_id();
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

CREATE FUNCTION note_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.changed_xid := pg_current_xact_id();
    INSERT INTO run_changes (id, run_id, created_at)
    VALUES (nextval('run_snapshots_id_seq'), NEW.id, clock_timestamp());
    RETURN NEW;
END
$$;

CREATE TRIGGER note_change BEFORE UPDATE OF metadata, tags, delayed_until ON runs
    FOR EACH ROW EXECUTE FUNCTION note_change();
