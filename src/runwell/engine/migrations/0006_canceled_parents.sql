-- Canceled runs whose children are still to be canceled: see engine/canceling.py.
CREATE TABLE canceled_parents (
    run_id text COLLATE "C" PRIMARY KEY REFERENCES runs ON DELETE CASCADE,
    due_at timestamptz NOT NULL,
    -- Children up to this one have been seen to in this look.
    after_id text COLLATE "C" NOT NULL DEFAULT '',
    -- Whether the run had ended before this look began.
    is_last_look boolean NOT NULL DEFAULT false
);
CREATE INDEX ON canceled_parents (due_at);
