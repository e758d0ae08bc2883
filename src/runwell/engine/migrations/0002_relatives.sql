-- The children of a run in their order: a reader takes the first thousand.
DROP INDEX runs_by_parent;
CREATE INDEX runs_by_parent ON runs (parent_run_id, id) WHERE parent_run_id IS NOT NULL;
