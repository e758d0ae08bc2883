-- name: read_tags
-- The tags of a run whose lock the caller holds.
SELECT tags FROM runs WHERE id = :run_id;

-- name: set_tags
-- Give a run these tags in place of those it has.
UPDATE runs SET tags = :tags::text[], updated_at = :now WHERE id = :run_id;
