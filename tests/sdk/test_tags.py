"""`tags.add`: tags of the current run."""

import json

import pytest

from runwell import RunwellError, configure, tags
from runwell.client.options import Retry
from runwell.sdk.runtime import activate
from runwell.sync import tags as blocking_tags
from tests.sdk.contexts import KeepingRuntime
from tests.support.api_server import answer, api_server


async def test_tags_go_to_the_current_run_in_both_ways_of_calling() -> None:
    runtime = KeepingRuntime()
    with api_server() as api, activate(runtime):
        configure(base_url=api.url, secret_key="tr_dev_x", retry=Retry(max_attempts=1))
        try:
            api.will(*[answer(200, {"message": "Successfully set 1 new tags."})] * 2)
            await tags.add("one")
            blocking_tags.add(["two", "three"])
            api.will(answer(422, {"error": "a run has at most 10 tags"}))
            await tags.add("four")
            assert [seen.path for seen in api.seen] == ["/api/v1/runs/run_1/tags"] * 3
            assert json.loads(api.seen[1].body) == {"tags": ["two", "three"]}
            # One too many is told of in the log of the run, as documented.
            (line,) = runtime.lines
            assert line[0] == "ERROR"
            assert line[2]["tags"] == "four"
            api.will(answer(404, {"error": "no run"}))
            with pytest.raises(RunwellError, match="no run"):
                await tags.add("five")
        finally:
            configure()


async def test_outside_of_a_run_there_is_nothing_to_tag() -> None:
    with pytest.raises(RunwellError, match=r"works inside of a run"):
        await tags.add("one")
    with pytest.raises(RunwellError, match=r"works inside of a run"):
        blocking_tags.add("one")
