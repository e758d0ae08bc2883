-- name: register_packet
-- An object is about to be uploaded. No row comes back while an earlier one of its path is deleted.
INSERT INTO packets (environment_id, path, created_at, expires_at)
VALUES (:environment_id, :path, :now, :expires_at)
ON CONFLICT (environment_id, path) DO UPDATE
    SET expires_at = greatest(packets.expires_at, excluded.expires_at)
    WHERE NOT packets.is_deleting
RETURNING path;

-- name: touch_packet
-- An object is about to be referred to: whoever sweeps gives it more time.
UPDATE packets SET expires_at = greatest(expires_at, :expires_at)
WHERE environment_id = :environment_id AND path = :path AND NOT is_deleting
RETURNING path;

-- name: take_expired_packets
-- Objects to look after; those that no run refers to are marked, and nobody may refer to them now.
WITH expired AS MATERIALIZED (
    SELECT p.environment_id, p.path FROM packets p
    WHERE p.expires_at <= :now
    ORDER BY p.expires_at LIMIT :most FOR UPDATE SKIP LOCKED
), looked_at AS (
    SELECT e.environment_id, e.path, EXISTS (
            SELECT FROM runs r WHERE r.environment_id = e.environment_id AND r.payload = e.path
                AND r.payload_type = 'application/store'
        ) OR EXISTS (
            SELECT FROM runs r WHERE r.environment_id = e.environment_id AND r.output = e.path
                AND r.output_type = 'application/store'
        ) AS is_referred_to
    FROM expired e
), settled AS (
    UPDATE packets p SET is_deleting = NOT l.is_referred_to,
        expires_at = CASE WHEN l.is_referred_to THEN NULL ELSE :retry_at::timestamptz END
    FROM looked_at l WHERE p.environment_id = l.environment_id AND p.path = l.path
    RETURNING p.environment_id, p.path, p.is_deleting
)
SELECT s.environment_id, s.path, s.is_deleting, e.public_id
FROM settled s JOIN environments e ON e.id = s.environment_id;

-- name: delete_packets
-- The objects of these are gone.
DELETE FROM packets p USING unnest(:environment_ids::bigint[], :paths::text[]) AS g (environment_id, path)
WHERE p.environment_id = g.environment_id AND p.path = g.path AND p.is_deleting;

-- name: find_signing_key
-- The secret by which this database's servers sign.
SELECT secret FROM signing_keys WHERE name = :name;

-- name: list_runs_of_packet
-- Runs that have a packet as their payload or output; a few, should it be many.
(SELECT id FROM runs WHERE environment_id = :environment_id AND payload = :path
    AND payload_type = 'application/store' LIMIT 20)
UNION
(SELECT id FROM runs WHERE environment_id = :environment_id AND output = :path
    AND output_type = 'application/store' LIMIT 20);
