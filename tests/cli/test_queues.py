"""`runwell queues` against a real server, without a worker."""

import json
from pathlib import Path
from typing import Any

from tests.cli.terminal import runwell, runwell_json


def _read_list(*arguments: str, folder: Path) -> list[dict[str, Any]]:
    done = runwell(*arguments, "--json", folder=folder)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_queues_are_listed_paused_limited_and_resumed(served: Path) -> None:
    runwell("trigger", "hello", folder=served)
    runwell("trigger", "hello", "--queue", "a/b", folder=served)

    listed = runwell("queues", "list", folder=served)
    paused = runwell("queues", "pause", "a/b", "task/hello", folder=served)
    limited = runwell("queues", "limit", "a/b", "5", folder=served)
    found = {queue["name"]: queue for queue in _read_list("queues", "list", folder=served)}

    assert "task/hello" in listed.stdout
    assert "environment dev: 0 of 1,000 running" in listed.stderr
    assert paused.stdout.count(": paused") == 2
    assert "limit 5 (override)" in limited.stdout
    assert (found["a/b"]["paused"], found["a/b"]["concurrencyLimit"]) == (True, 5)
    assert (found["hello"]["type"], found["hello"]["paused"]) == ("task", True)

    queue_id = found["a/b"]["id"]
    resumed = _read_list("queues", "resume", queue_id, folder=served)
    reset = runwell_json("queues", "limit", queue_id, "--reset", folder=served)
    assert (resumed[0]["paused"], reset["concurrencyLimit"]) == (False, None)


def test_the_environment_is_paused_limited_and_resumed(served: Path) -> None:
    paused = runwell("queues", "pause", "--all", folder=served)
    limited = runwell_json("queues", "limit", "--all", "7", folder=served)
    resumed = runwell_json("queues", "resume", "--all", folder=served)

    assert paused.stdout.startswith("environment dev: paused, 0 of 1,000 running")
    assert (limited["paused"], limited["concurrencyLimit"]) == (True, 7)
    assert resumed["paused"] is False


def test_what_can_not_be_is_refused_with_what_to_do(served: Path) -> None:
    unknown = runwell("queues", "pause", "nobody", folder=served)
    assert unknown.returncode == 1
    assert "there is no queue named nobody" in unknown.stderr
    for words, said in (
        (("pause",), "give the names of queues, or --all"),
        (("limit", "mail"), "give a queue and a limit"),
        (("limit", "mail", "many"), "'many' is no limit"),
        (("limit", "mail", "100001"), "'100001' is no limit"),
    ):
        done = runwell("queues", *words, folder=served)
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr
