"""Places where applications trigger in their own transactions, without a server."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from runwell.client.api import ApiClient
from runwell.client.management import BlockingTasks, Tasks
from runwell.client.transport import ClientSettings
from runwell.engine import environments, pending_triggers
from runwell.engine.db import Database
from tests.support.factories import Scene, make_scene, make_task, read

RUNS = "SELECT id, task_id, payload, tags, execution_status, batch_id FROM runs ORDER BY id"


@dataclass(frozen=True)
class Place:
    """An environment, and an API client of it that reaches no server."""

    scene: Scene
    dsn: str
    api: ApiClient

    @property
    def tasks(self) -> Tasks:
        return Tasks(self.api)

    @property
    def blocking(self) -> BlockingTasks:
        return BlockingTasks(self.api)

    async def drain(self, now: datetime | None = None) -> list[Any]:
        """Do what a server does; returns the runs there are then."""
        instant = now or datetime.now(UTC)
        while (await pending_triggers.create_pending_runs(self.scene.db, now=instant)).seen:
            pass
        return await read(self.scene.db, RUNS)


async def make_place(db: Database, dsn: str) -> Place:
    """An environment with the task `add`."""
    scene = await make_scene(db, make_task("add"), now=datetime.now(UTC))
    async with db.connection() as tx:
        keys = await environments.list_local_keys(tx, now=scene.now)
    # Nobody listens there.
    settings = ClientSettings(base_url="http://127.0.0.1:9", secret_key=keys["prod"])
    return Place(scene=scene, dsn=dsn, api=ApiClient(lambda: settings))
