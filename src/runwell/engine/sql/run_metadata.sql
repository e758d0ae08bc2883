-- name: read_metadata
-- A run's metadata, and which update of its worker was the last.
SELECT metadata, metadata_lease_id AS lease_id, metadata_seq AS seq FROM runs
WHERE id = :run_id AND environment_id = :environment_id;

-- name: find_relatives
-- The parent and the root of a run.
SELECT id, parent_run_id, root_run_id FROM runs
WHERE id = :run_id AND environment_id = :environment_id;

-- name: list_relatives
-- The parents and the roots of runs.
SELECT id, parent_run_id, root_run_id FROM runs WHERE id = ANY(:run_ids::text[]);

-- name: lock_metadata
-- Lock runs in the order of their ids, and read their metadata.
SELECT id, execution_status, metadata, metadata_version, metadata_lease_id, metadata_seq FROM runs
WHERE id = ANY(:run_ids::text[]) ORDER BY id FOR NO KEY UPDATE;

-- name: store_metadata
-- New metadata of runs; what they were triggered with is kept at the first change.
UPDATE runs r SET metadata = g.metadata::jsonb, metadata_version = r.metadata_version + 1,
    original_metadata = CASE r.metadata_version WHEN 0 THEN r.metadata ELSE r.original_metadata END,
    updated_at = :now
FROM unnest(:run_ids::text[], :metadata::text[]) AS g (run_id, metadata)
WHERE r.id = g.run_id;

-- name: note_updates
-- The last update that the workers of runs reported.
UPDATE runs r SET metadata_lease_id = g.lease_id, metadata_seq = g.seq
FROM unnest(:run_ids::text[], :lease_ids::bigint[], :seqs::integer[]) AS g (run_id, lease_id, seq)
WHERE r.id = g.run_id;

-- name: remember_key
-- A request that changes a run's metadata; no row when it was there before.
INSERT INTO run_metadata_keys (run_id, key, number) VALUES (:run_id, :key, :number)
ON CONFLICT (run_id, key) DO NOTHING
RETURNING number;

-- name: forget_keys
-- Old requests of a run: whoever made them has stopped trying.
DELETE FROM run_metadata_keys WHERE run_id = :run_id AND number <= :before;
