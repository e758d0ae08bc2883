-- name: insert_worker
-- A supervisor connects.
INSERT INTO workers
    (public_id, environment_id, name, region, capacity, package_version, lease_seconds,
    connected_at, lease_expires_at)
VALUES (:public_id, :environment_id, :name, :region, :capacity, :package_version, :lease_seconds,
    :now, :now::timestamptz + make_interval(secs => :lease_seconds));

-- name: declare_region
-- A region that a worker says it is in.
INSERT INTO regions (environment_id, name) VALUES (:environment_id, :region)
ON CONFLICT DO NOTHING;

-- name: renew_lease
-- A supervisor lives. One whose lease has ended may have it back: what was taken from it meanwhile it
-- hears of as lost, and what was not is still its own.
UPDATE workers SET lease_expires_at = :now::timestamptz + make_interval(secs => lease_seconds),
    background_worker_ids = coalesce(:background_worker_ids::text[], background_worker_ids)
WHERE public_id = :worker_id AND environment_id = :environment_id
RETURNING id, lease_seconds;

-- name: end_lease
-- A supervisor has ended, or another one took its place.
UPDATE workers SET lease_expires_at = :now
WHERE public_id = :worker_id AND environment_id = :environment_id
RETURNING id;

-- name: list_held_runs
-- The runs that a worker holds, with what decides whether it must hear of them.
SELECT id, lease_id, execution_status, event_at FROM runs WHERE worker_id = :worker_id;

-- name: list_lost_runs
-- Runs whose worker's lease has ended. The workers are locked, so that none renews its lease before
-- its runs are taken back, and no two servers take the same ones.
WITH lost AS MATERIALIZED (
    SELECT w.id FROM workers w
    WHERE w.lease_expires_at <= :now AND EXISTS (SELECT FROM runs r WHERE r.worker_id = w.id)
    ORDER BY w.id FOR NO KEY UPDATE SKIP LOCKED
)
SELECT r.id, r.lease_id FROM lost l JOIN runs r ON r.worker_id = l.id ORDER BY r.id LIMIT :most;

-- name: delete_old_workers
-- Workers that were gone a day ago and hold nothing.
DELETE FROM workers w WHERE w.lease_expires_at < :now::timestamptz - interval '1 day'
    AND NOT EXISTS (SELECT FROM runs r WHERE r.worker_id = w.id);
