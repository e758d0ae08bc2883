-- name: has_migration
-- Whether a migration was applied.
SELECT EXISTS (SELECT FROM schema_migrations WHERE version = :version);
