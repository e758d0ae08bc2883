-- name: find_environment_by_key
-- The environment that a living secret key belongs to.
SELECT e.id, e.public_id, e.slug, e.type, e.concurrency_limit, e.variables_version,
    p.public_id AS project_public_id, p.ref AS project_ref, p.slug AS project_slug,
    p.name AS project_name,
    o.public_id AS organization_public_id, o.slug AS organization_slug, o.name AS organization_name
FROM api_keys k
JOIN environments e ON e.id = k.environment_id
JOIN projects p ON p.id = e.project_id
JOIN organizations o ON o.id = p.organization_id
WHERE k.secret_hash = :secret_hash AND (k.expires_at IS NULL OR k.expires_at > :now);

-- name: get_environment
-- An environment by its key in the database.
SELECT e.id, e.public_id, e.slug, e.type, e.concurrency_limit, e.variables_version,
    p.public_id AS project_public_id, p.ref AS project_ref, p.slug AS project_slug,
    p.name AS project_name,
    o.public_id AS organization_public_id, o.slug AS organization_slug, o.name AS organization_name
FROM environments e
JOIN projects p ON p.id = e.project_id
JOIN organizations o ON o.id = p.organization_id
WHERE e.id = :environment_id;

-- name: lock_first_project
-- One server at a time creates the first project.
SELECT pg_advisory_xact_lock(7235421);

-- name: has_project
-- Whether there is any project.
SELECT EXISTS (SELECT FROM projects);

-- name: insert_organization
-- The organisation of a first project.
INSERT INTO organizations (public_id, slug, name, created_at)
VALUES (:public_id, :slug, :name, :now)
RETURNING id;

-- name: insert_project
-- A project of an organisation.
INSERT INTO projects (public_id, organization_id, ref, slug, name, created_at)
VALUES (:public_id, :organization_id, :ref, :slug, :name, :now)
RETURNING id;

-- name: insert_environment
-- An environment with its first key and its counter of running runs.
WITH environment AS (
    INSERT INTO environments (public_id, project_id, slug, type, concurrency_limit, created_at)
    VALUES (:public_id, :project_id, :slug, :type, :concurrency_limit, :now)
    RETURNING id
), key AS (
    INSERT INTO api_keys (environment_id, secret_key, created_at)
    SELECT id, :secret_key, :now FROM environment
)
INSERT INTO environment_concurrency (environment_id, concurrency_limit)
SELECT id, :concurrency_limit FROM environment
RETURNING environment_id;

-- name: list_local_keys
-- The newest living key of each environment of the oldest project.
SELECT DISTINCT ON (e.slug) e.slug, k.secret_key
FROM environments e
JOIN api_keys k ON k.environment_id = e.id
WHERE e.project_id = (SELECT min(id) FROM projects)
    AND (k.expires_at IS NULL OR k.expires_at > :now)
ORDER BY e.slug, k.created_at DESC, k.id DESC;

-- name: find_load
-- What an environment may run and runs, and how much waits in it, counted up to a number.
SELECT e.concurrency_limit, e.is_paused, c.running, w.queued
FROM environments e
JOIN environment_concurrency c ON c.environment_id = e.id
CROSS JOIN LATERAL (
    SELECT count(*)::integer AS queued FROM (
        SELECT FROM queues q
        JOIN subqueues s ON s.queue_id = q.id AND s.has_queued AND (s.has_queued OR s.running > 0)
        JOIN queued_runs r ON r.subqueue_id = s.id
        WHERE q.environment_id = e.id
        LIMIT :most_counted
    ) counted
) w
WHERE e.id = :environment_id;

-- name: set_paused
-- Pause an environment or let it go on.
UPDATE environments SET is_paused = :is_paused
WHERE id = :environment_id AND is_paused <> :is_paused;

-- name: set_concurrency_limit
-- How many runs of an environment may execute at once.
UPDATE environments SET concurrency_limit = :concurrency_limit
WHERE id = :environment_id AND concurrency_limit <> :concurrency_limit;

-- name: list_environments
-- Every environment there is, the oldest project's first, dev before staging before prod.
SELECT e.id, e.public_id, e.slug, e.type, e.concurrency_limit, e.variables_version,
    p.public_id AS project_public_id, p.ref AS project_ref, p.slug AS project_slug,
    p.name AS project_name,
    o.public_id AS organization_public_id, o.slug AS organization_slug, o.name AS organization_name
FROM environments e
JOIN projects p ON p.id = e.project_id
JOIN organizations o ON o.id = p.organization_id
ORDER BY p.id, e.id;

-- name: find_environment_by_ref
-- An environment by its project's reference and its own short name.
SELECT e.id, e.public_id, e.slug, e.type, e.concurrency_limit, e.variables_version,
    p.public_id AS project_public_id, p.ref AS project_ref, p.slug AS project_slug,
    p.name AS project_name,
    o.public_id AS organization_public_id, o.slug AS organization_slug, o.name AS organization_name
FROM environments e
JOIN projects p ON p.id = e.project_id
JOIN organizations o ON o.id = p.organization_id
WHERE p.ref = :project_ref AND e.slug = :slug;

-- name: find_environment_of_run
-- The key of the environment that has a run.
SELECT environment_id FROM runs WHERE id = :run_id;
