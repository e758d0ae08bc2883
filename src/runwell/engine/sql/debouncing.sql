-- name: lock_debounce
-- The delayed run of a task and key, locked until the transaction ends; a new one names the run that
-- is to be made. `is_made`: that run is there, so this request was carried out before, as it was when
-- it `is_repeated`.
INSERT INTO debounces AS d (environment_id, task_id, key, run_id, due_at, latest_at)
VALUES (:environment_id, :task_id, :key, :run_id, :due_at, :latest_at)
ON CONFLICT (environment_id, task_id, key) DO UPDATE SET run_id = d.run_id
RETURNING d.run_id, d.latest_at, coalesce(:request_key = ANY(d.request_keys), false) AS is_repeated,
    EXISTS (SELECT FROM runs r WHERE r.id = :run_id) AS is_made;

-- name: find_run_of_key
-- The run that an idempotency key stands for now.
SELECT k.run_id FROM idempotency_keys k
WHERE k.environment_id = :environment_id AND k.task_id = :task_id AND k.key = :key
    AND k.expires_at > :now
    AND NOT EXISTS (
        SELECT FROM runs r WHERE r.id = k.run_id AND r.execution_status = 'FINISHED'
            AND r.status NOT IN ('COMPLETED', 'CANCELED')
    );

-- name: take_key
-- An idempotency key stands for a run that was there already.
INSERT INTO idempotency_keys AS k (environment_id, task_id, key, run_id, expires_at)
VALUES (:environment_id, :task_id, :key, :run_id, :expires_at)
ON CONFLICT (environment_id, task_id, key) DO UPDATE
    SET run_id = excluded.run_id, expires_at = excluded.expires_at;

-- name: push_run
-- A run that is still delayed gets a later instant, and what the trigger brings if it `is_trailing`.
-- No event: a run that is pushed a thousand times is none that has a history of it.
WITH moved AS (
    UPDATE runs r SET delayed_until = :due_at, updated_at = :now,
        order_at = :due_at::timestamptz - make_interval(secs => r.priority_seconds),
        payload = CASE WHEN :is_trailing THEN :payload ELSE r.payload END,
        payload_type = CASE WHEN :is_trailing THEN :payload_type ELSE r.payload_type END,
        metadata = CASE WHEN :is_trailing THEN :metadata::jsonb ELSE r.metadata END,
        original_metadata = CASE WHEN NOT :is_trailing THEN r.original_metadata END,
        metadata_version = CASE WHEN NOT :is_trailing THEN r.metadata_version ELSE 0 END,
        tags = CASE WHEN NOT :is_trailing THEN r.tags WHEN :tags::text IS NULL THEN '{}'
            ELSE ARRAY(SELECT jsonb_array_elements_text(:tags::jsonb)) END,
        max_attempts = CASE WHEN :is_trailing THEN :max_attempts ELSE r.max_attempts END,
        max_duration = CASE WHEN :is_trailing THEN :max_duration ELSE r.max_duration END,
        machine = CASE WHEN :is_trailing THEN :machine ELSE r.machine END
    WHERE r.id = :run_id AND r.execution_status = 'DELAYED'
    RETURNING r.id, r.delayed_until
), timed AS (
    UPDATE run_timers t SET due_at = m.delayed_until FROM moved m WHERE t.run_id = m.id
)
SELECT id FROM moved;

-- name: note_push
-- What a trigger came to: the run, until when it is delayed, and the request, of which the last 16
-- are kept.
UPDATE debounces d SET run_id = :run_id, due_at = :due_at, latest_at = :latest_at,
    request_keys = CASE WHEN :request_key::text IS NULL THEN d.request_keys ELSE
        d.request_keys[greatest(1, cardinality(d.request_keys) - 14):] || :request_key::text END
WHERE d.environment_id = :environment_id AND d.task_id = :task_id AND d.key = :key;

-- name: delete_idle_debounces
-- Debounces whose run went on its way an hour ago.
DELETE FROM debounces d WHERE (d.environment_id, d.task_id, d.key) IN (
    SELECT i.environment_id, i.task_id, i.key FROM debounces i
    WHERE i.due_at < :now::timestamptz - interval '1 hour'
        AND NOT EXISTS (
            SELECT FROM runs r WHERE r.id = i.run_id AND r.execution_status = 'DELAYED'
        )
    ORDER BY i.due_at LIMIT :most FOR UPDATE SKIP LOCKED
);
