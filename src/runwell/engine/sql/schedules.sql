-- name: find_scheduled_task
-- Whether a task of the current version takes schedules; no row when that version hasn't the task.
SELECT t.is_scheduled FROM environments e
JOIN background_worker_tasks t ON t.background_worker_id = e.current_background_worker_id
WHERE e.id = :environment_id AND t.task_id = :task_id;

-- name: insert_schedule
-- A new schedule; no row when another one has its deduplication key.
INSERT INTO schedules (
    public_id, environment_id, type, task_id, deduplication_key, external_id, cron, timezone,
    missed_ticks, spread_seconds, is_active, next_tick_at, due_at, created_at, updated_at
)
VALUES (
    :public_id, :environment_id, :type, :task_id, :deduplication_key, :external_id, :cron,
    :timezone, :missed_ticks, :spread_seconds, true, :next_tick_at, :due_at, :now, :now
)
ON CONFLICT (environment_id, deduplication_key) DO NOTHING
RETURNING *;

-- name: lock_schedule
-- A schedule that is about to be changed.
SELECT * FROM schedules
WHERE environment_id = :environment_id AND public_id = :public_id FOR NO KEY UPDATE;

-- name: lock_schedule_of_key
-- The schedule with a deduplication key, about to be changed.
SELECT * FROM schedules
WHERE environment_id = :environment_id AND deduplication_key = :deduplication_key
FOR NO KEY UPDATE;

-- name: has_deduplication_key
-- Whether another schedule has this deduplication key.
SELECT EXISTS (
    SELECT FROM schedules
    WHERE environment_id = :environment_id AND deduplication_key = :deduplication_key
        AND id <> :id
);

-- name: update_schedule
-- Change what a schedule does and when.
UPDATE schedules SET task_id = :task_id, deduplication_key = :deduplication_key,
    external_id = :external_id, cron = :cron, timezone = :timezone, missed_ticks = :missed_ticks,
    spread_seconds = :spread_seconds, is_active = :is_active, next_tick_at = :next_tick_at,
    due_at = :due_at, updated_at = :now
WHERE id = :id
RETURNING *;

-- name: delete_schedule
-- Forget a schedule; its runs stay.
DELETE FROM schedules WHERE id = :id;

-- name: find_schedule
-- A schedule of an environment.
SELECT * FROM schedules WHERE environment_id = :environment_id AND public_id = :public_id;

-- name: count_schedules
-- How many schedules an environment has.
SELECT count(*) FROM schedules WHERE environment_id = :environment_id;

-- name: list_schedules
-- A page of an environment's schedules, the newest first.
SELECT * FROM schedules WHERE environment_id = :environment_id
ORDER BY id DESC LIMIT :most OFFSET :passed;

-- name: list_tasks_with_schedules
-- The schedules that a version's code declares.
SELECT t.task_id, t.schedule FROM background_worker_tasks t
WHERE t.background_worker_id = :background_worker_id AND t.schedule IS NOT NULL
ORDER BY t.task_id;

-- name: lock_declared_schedules
-- The schedules that the code declared before, about to be compared with what it declares now.
SELECT * FROM schedules WHERE environment_id = :environment_id AND type = 'DECLARATIVE'
ORDER BY id FOR NO KEY UPDATE;
