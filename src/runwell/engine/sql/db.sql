-- name: allow_any_plan
-- Undo, until the transaction ends, what the pool forbids the planner.
SELECT set_config('plan_cache_mode', 'force_custom_plan', true),
    set_config('enable_seqscan', 'on', true), set_config('enable_bitmapscan', 'on', true),
    set_config('enable_hashjoin', 'on', true), set_config('enable_mergejoin', 'on', true);

-- name: has_written
-- Whether this transaction has changed anything, as tests ask that let it fail.
SELECT pg_current_xact_id_if_assigned() IS NOT NULL;
