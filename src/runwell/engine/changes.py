"""Whether anything in the database has changed, at the price of one cheap question.

A snapshot of PostgreSQL says which transactions count by now, so it differs exactly when another
one has begun or ended to write. Some of those change nothing that the asker shows; he looks, and
finds nothing new.
"""

from runwell.engine.db import Transaction
from runwell.engine.queries import load_queries

_sql = load_queries("changes")


async def read_position(tx: Transaction) -> str:
    """A text that is another one after any change in the database."""
    position: str = await tx.fetch_value(_sql.read_position)
    return position
