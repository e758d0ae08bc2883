-- Streams: what a task sends while it runs, chunk by chunk, for readers that may come at any time.

CREATE TABLE run_streams (
    run_id text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    chunks integer NOT NULL DEFAULT 0,
    bytes bigint NOT NULL DEFAULT 0,
    -- Who writes now; the stream is closed when nobody does.
    open_writers text[] NOT NULL,
    -- When to see next whether the run ended long ago.
    look_at timestamptz NOT NULL,
    PRIMARY KEY (run_id, key)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);

CREATE INDEX run_streams_look_at ON run_streams (look_at);

CREATE TABLE run_stream_chunks (
    run_id text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    number integer NOT NULL,
    -- Each writer numbers its own chunks, so that what it sends again is known.
    writer text COLLATE "C" NOT NULL,
    writer_number integer NOT NULL,
    body text NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (run_id, key, number),
    UNIQUE (run_id, key, writer, writer_number),
    FOREIGN KEY (run_id, key) REFERENCES run_streams (run_id, key) ON DELETE CASCADE
);
