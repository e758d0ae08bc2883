-- Which versions a worker can run, so that a run can say that nobody has its own; null: it didn't say.

ALTER TABLE workers ADD COLUMN background_worker_ids text[] COLLATE "C";
CREATE INDEX workers_of_environment ON workers (environment_id);
