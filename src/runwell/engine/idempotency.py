"""Idempotency keys by themselves: giving one up before its time.

How a trigger takes one is part of the statement that inserts the run (`triggering`).
"""

from runwell.engine.db import Database
from runwell.engine.environments import Environment
from runwell.engine.queries import load_queries

_sql = load_queries("idempotency")


async def reset_key(db: Database, environment: Environment, task_id: str, key: str) -> bool:
    """Let the next trigger of a task with this key make a new run; whether it had one.

    The run that had the key goes on, or has ended, as if nothing had happened.
    """
    rows = await db.fetch(_sql.delete_key, environment_id=environment.id, task_id=task_id, key=key)
    return bool(rows)
