"""`auth.with_auth`: other credentials within a block, and nowhere else."""

import asyncio
import json
from collections.abc import Generator

import pytest

import runwell.sync
from runwell import ConfigurationError, auth, tasks
from runwell.sdk.client import current_settings
from runwell.sdk.runtime import activate
from tests.sdk.contexts import KeepingRuntime
from tests.support.api_server import ApiServer, answer, api_server

TRIGGERED = answer(200, {"id": "run_1", "isCached": False})


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Generator[ApiServer]:
    with api_server() as api:
        monkeypatch.setenv("TRIGGER_API_URL", api.url)
        monkeypatch.setenv("TRIGGER_SECRET_KEY", "tr_dev_own")
        yield api


def test_another_credential_holds_within_its_block(api: ApiServer) -> None:
    api.will(*[TRIGGERED] * 3)
    for module in (runwell.sync.auth, auth):
        with module.with_auth("tr_prod_other"):
            assert current_settings().secret_key == "tr_prod_other"
            with module.with_auth("token", base_url="http://other.test/"):
                assert current_settings().base_url == "http://other.test"
            assert current_settings().base_url == api.url
    with auth.with_auth("tr_prod_other"):
        runwell.sync.tasks.trigger("a")
    runwell.sync.tasks.trigger("a")
    assert [seen.headers["authorization"] for seen in api.seen] == [
        "Bearer tr_prod_other",
        "Bearer tr_dev_own",
    ]


async def test_tasks_of_asyncio_keep_their_own_credentials(api: ApiServer) -> None:
    inside, go_on = asyncio.Event(), asyncio.Event()

    async def other() -> str | None:
        with auth.with_auth("tr_prod_other"):
            inside.set()
            await go_on.wait()
            return current_settings().secret_key

    running = asyncio.create_task(other())
    await inside.wait()
    assert current_settings().secret_key == "tr_dev_own"
    go_on.set()
    assert await running == "tr_prod_other"


async def test_what_is_triggered_elsewhere_is_no_child_of_the_run(
    api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIGGER_VERSION", "20250101.1")
    api.will(TRIGGERED, TRIGGERED)
    with activate(KeepingRuntime()):
        await tasks.trigger("a")
        with auth.with_auth("tr_prod_other"):
            await tasks.trigger("a")
    options = [json.loads(seen.body)["options"] for seen in api.seen]
    assert [one.get("parentRunId") is None for one in options] == [False, True]
    assert [one.get("lockToVersion") for one in options] == ["20250101.1", None]


def test_a_bad_url_is_refused_and_changes_nothing(api: ApiServer) -> None:
    with pytest.raises(ConfigurationError), auth.with_auth("x", base_url="nowhere"):
        pass
    assert current_settings().secret_key == "tr_dev_own"
    with pytest.raises(LookupError), auth.with_auth("x"):
        raise LookupError
    assert current_settings().secret_key == "tr_dev_own"
