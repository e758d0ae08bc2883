-- name: insert_bulk_action
-- A new bulk action; no row when the same request made it before.
INSERT INTO bulk_actions
    (public_id, environment_id, action, filters, run_ids, total, claimed_until, created_at)
VALUES (:public_id, :environment_id, :action, :filters::jsonb, :run_ids::text[], :total, :now, :now)
ON CONFLICT (public_id) DO NOTHING
RETURNING id;

-- name: find_bulk_action
-- A bulk action by its public id.
SELECT * FROM bulk_actions WHERE public_id = :public_id AND environment_id = :environment_id;

-- name: list_bulk_actions
-- The newest bulk actions of an environment.
SELECT * FROM bulk_actions WHERE environment_id = :environment_id ORDER BY id DESC LIMIT :most;

-- name: abort_bulk_action
-- End a bulk action that isn't done; what was done stays.
UPDATE bulk_actions SET status = 'ABORTED', completed_at = :now
WHERE public_id = :public_id AND environment_id = :environment_id AND status = 'PENDING'
RETURNING id;

-- name: find_missing_runs
-- Of these ids, those that no run of an environment has.
SELECT g.id FROM unnest(:run_ids::text[]) AS g (id)
WHERE NOT EXISTS (SELECT FROM runs r WHERE r.id = g.id AND r.environment_id = :environment_id)
LIMIT 3;

-- name: list_failed_items
-- Some of the runs for which it could not be done, and why.
SELECT run_id, error FROM bulk_action_items
WHERE bulk_action_id = :id AND status = 'FAILED' ORDER BY run_id LIMIT :most;

-- name: count_matching_runs
-- How many runs pass all filters, as far as one counts.
SELECT count(*) FROM (
    SELECT FROM matching_runs(
        :environment_id, :run_ids, :statuses, :task_ids, :versions, :tags, :batch_id, :schedule_id,
        :bulk_action_id, :is_test, :created_from, :created_to
    ) r LIMIT :most
) found;

-- name: list_matching_runs
-- The next runs that pass all filters, the newest first; none that this action has made itself.
SELECT r.id FROM matching_runs(
    :environment_id, :run_ids, :statuses, :task_ids, :versions, :tags, :batch_id, :schedule_id,
    :bulk_action_id, :is_test, :created_from, :created_to
) r
WHERE (:after::text IS NULL OR r.id < :after)
    AND NOT EXISTS (
        SELECT FROM bulk_action_items i WHERE i.bulk_action_id = :id AND i.new_run_id = r.id
    )
ORDER BY r.id DESC LIMIT :most;
