-- name: delete_key
-- A key that is to stand for no run any more.
DELETE FROM idempotency_keys
WHERE environment_id = :environment_id AND task_id = :task_id AND key = :key
RETURNING run_id;
