-- name: find_default_key
-- The key by which values are encrypted when the settings give none.
SELECT secret FROM signing_keys WHERE name = 'variables';

-- name: list_variables
-- Every variable of an environment.
SELECT name, encrypted_value, is_secret FROM environment_variables
WHERE environment_id = :environment_id ORDER BY name;

-- name: find_variable
-- A variable of an environment.
SELECT name, encrypted_value, is_secret FROM environment_variables
WHERE environment_id = :environment_id AND name = :name;

-- name: read_version
-- By which number an environment's variables are known.
SELECT variables_version FROM environments WHERE id = :environment_id;

-- name: lock_variables
-- One change of an environment's variables at a time.
SELECT FROM environments WHERE id = :environment_id FOR NO KEY UPDATE;

-- name: insert_variable
-- A variable. No row comes back when it is there and is to stay.
INSERT INTO environment_variables AS v
    (environment_id, name, encrypted_value, is_secret, created_at, updated_at)
VALUES (:environment_id, :name, :encrypted_value, :is_secret, :now, :now)
ON CONFLICT (environment_id, name) DO UPDATE
    SET encrypted_value = excluded.encrypted_value, updated_at = excluded.updated_at,
        is_secret = v.is_secret OR excluded.is_secret
    WHERE :overrides
RETURNING true;

-- name: update_variable
-- Another value of a variable.
UPDATE environment_variables SET encrypted_value = :encrypted_value, updated_at = :now
WHERE environment_id = :environment_id AND name = :name
RETURNING true;

-- name: delete_variable
-- Forget a variable.
DELETE FROM environment_variables WHERE environment_id = :environment_id AND name = :name
RETURNING true;

-- name: note_change
-- The variables of an environment have changed: how many they are, and how large.
UPDATE environments e SET variables_version = e.variables_version + 1
FROM (
    SELECT count(*)::integer AS number, coalesce(sum(octet_length(encrypted_value)), 0)::bigint
        AS bytes
    FROM environment_variables WHERE environment_id = :environment_id
) v
WHERE e.id = :environment_id
RETURNING v.number, v.bytes;
