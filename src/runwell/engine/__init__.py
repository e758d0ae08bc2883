"""The rules of runs, queues and workers, as functions over an open transaction.

A map, from the bottom up; `ARCHITECTURE.md` has the picture.

- `embedded`, `postgres_process`: a PostgreSQL of our own, when no DATABASE_URL is given
- `db`, `queries`, `migrations`, `notifications`: connections, named SQL, the schema, wake-ups
- `environments`: organisations, projects, environments, API keys
- `snapshots`: the history of a run's statuses; the schema itself writes it
- `logs`: captured lines of attempts
- `queues`: enqueue, dequeue under concurrency limits
- `trigger_options`, `debouncing`, `triggering`: what a trigger asks for; one run for many; new runs
- `batches`, `idempotency`: many runs in one step; keys that are given up
- `attempts`, `deployments`: what workers report; indexed versions
- `workers`: supervisors with their leases
- `runs`: read, list, cancel
- `timers`, `maintenance`, `background`: what happens by itself
"""
