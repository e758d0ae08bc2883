"""`runwell schedules` against a real server, without a worker."""

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import httpx

from runwell.cli.connection import read_local
from tests.cli.terminal import runwell
from tests.server.serving import manifest


def served_api(folder: Path) -> httpx.Client:
    """A client of the server, whose task `report` takes schedules now."""
    local = read_local(folder / ".runwell")
    assert local is not None
    headers = {"authorization": f"Bearer {local.secret_key}"}
    client = httpx.Client(base_url=local.url, headers=headers, timeout=30)
    metadata: Any = manifest("report")
    metadata["tasks"][0]["triggerSource"] = "schedule"
    answer = client.post("/api/v1/projects/~/background-workers", json={"metadata": metadata})
    assert answer.status_code == 200, answer.text
    return client


def test_a_schedule_is_created_switched_and_deleted(served: Path) -> None:
    served_api(served).close()
    options = ["--timezone", "Asia/Tokyo", "--external-id", "u_1", "--missed", "catch-up"]
    made = runwell(
        *("schedules", "create", "report", "0 9 * * 5L", "--key", "k", "--spread", "5m"),
        *options,
        folder=served,
    )
    assert made.returncode == 0, made.stderr
    for part in ("Asia/Tokyo", "u_1", "catch-up", "300 s after each tick at most"):
        assert part in made.stdout
    assert "At 09:00 on the last Friday of the month" in made.stdout
    (found,) = re.findall(r"sched_\w+", made.stdout)

    stopped = runwell("schedules", "deactivate", found, folder=served)
    started = runwell("schedules", "activate", found, folder=served)
    deleted = runwell("schedules", "delete", found, folder=served)
    missing = runwell("schedules", "show", found, folder=served)
    empty = runwell("schedules", "list", folder=served)

    assert stopped.stdout == f"{found}: inactive\n"
    assert started.stdout.startswith(f"{found}: next run ")
    assert deleted.stdout == f"{found}: deleted\n"
    assert missing.returncode == 1
    assert f"there is no schedule {found}" in missing.stderr
    assert "there are no schedules yet" in empty.stderr


def test_schedules_are_listed_and_it_is_said_when_there_are_more(served: Path) -> None:
    ids: list[str] = []
    with contextlib.closing(served_api(served)) as api:
        for number in range(3):
            body = {"task": "report", "cron": "0 9 * * *", "deduplicationKey": f"k{number}"}
            ids.append(api.post("/api/v1/schedules", json=body).json()["id"])
        api.post(f"/api/v1/schedules/{ids[-1]}/deactivate")

    listed = runwell("schedules", "list", "-n", "2", folder=served)
    found = json.loads(runwell("schedules", "list", "--json", folder=served).stdout)

    assert listed.stdout.count("sched_") == 2
    for part in (ids[-1], "report", "0 9 * * *", "UTC", "imperative", "inactive"):
        assert part in listed.stdout
    assert "2 of 3: --limit shows more" in listed.stderr
    assert [schedule["active"] for schedule in found] == [False, True, True]


def test_what_cannot_be_is_refused_with_what_and_where(served: Path) -> None:
    served_api(served).close()
    create = ("schedules", "create", "report")
    pattern = runwell(*create, "0 25 * * *", "--key", "k", folder=served)
    spread = runwell(*create, "* * * * *", "--key", "k", "--spread", "2d", folder=served)
    assert pattern.returncode == spread.returncode == 1
    assert "its hour '25' can't be" in pattern.stderr
    assert "it takes up to a day" in spread.stderr
