-- name: reload_settings
-- Let what ALTER SYSTEM has set hold from here on.
SELECT pg_reload_conf();
