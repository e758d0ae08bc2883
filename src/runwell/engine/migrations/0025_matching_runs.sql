-- The filters of lists and bulk actions, in one place. Null lets all pass. A function of this form is
-- planned as a part of the query that calls it, by the values that it gets.
CREATE FUNCTION matching_runs(
    of_environment_id bigint, run_ids text[], statuses text[], task_ids text[], versions text[],
    any_tags text[], of_batch_id text, of_schedule_id text, of_bulk_action_id text, is_test_run boolean,
    created_from timestamptz, created_to timestamptz
) RETURNS SETOF runs LANGUAGE sql STABLE AS $$
    SELECT r.* FROM runs r
    WHERE r.environment_id = of_environment_id
        AND (run_ids IS NULL OR r.id = ANY(run_ids))
        AND (statuses IS NULL OR r.status = ANY(statuses))
        AND (task_ids IS NULL OR r.task_id = ANY(task_ids))
        AND (versions IS NULL OR r.background_worker_id IN (
            SELECT b.id FROM background_workers b
            WHERE b.environment_id = of_environment_id AND b.version = ANY(versions)
        ))
        AND (any_tags IS NULL OR r.tags && any_tags)
        AND (of_batch_id IS NULL
            OR r.id IN (SELECT i.run_id FROM batch_items i WHERE i.batch_id = of_batch_id))
        AND (of_schedule_id IS NULL OR r.schedule_id = of_schedule_id)
        AND (of_bulk_action_id IS NULL OR r.id IN (
            SELECT unnest(ARRAY[i.run_id, i.new_run_id])
            FROM bulk_action_items i JOIN bulk_actions a ON a.id = i.bulk_action_id
            WHERE a.public_id = of_bulk_action_id
        ))
        AND (is_test_run IS NULL OR r.is_test = is_test_run)
        AND (matching_runs.created_from IS NULL OR r.created_at >= matching_runs.created_from)
        AND (matching_runs.created_to IS NULL OR r.created_at <= matching_runs.created_to)
$$;
