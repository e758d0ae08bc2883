"""The warm parent's rehearsal of runs: it leaves nothing that a task could see."""

import json
import subprocess
import sys
from typing import cast

_PROGRAM = """
import asyncio, gc, json, logging, os, resource, sys, warnings
from runwell.sdk.catalog import catalog
from runwell import define_config
from runwell.sdk.project import ImportedTasks, TaskCatalog
from runwell.worker.capture import install_streams
from runwell.worker import child, rehearsal

def state():
    try:
        loop = asyncio.get_event_loop_policy()._local._loop
    except AttributeError:
        loop = None
    return [
        len(os.listdir("/proc/self/fd")),
        resource.getrlimit(resource.RLIMIT_DATA),
        repr(loop),
        repr(sys.stdout),
        len(logging.getLogger().handlers),
        len(catalog.tasks),
        os.getcwd(),
    ]

capture = install_streams()
capture.prepare()
imported = ImportedTasks(
    catalog=TaskCatalog(), manifests={}, problems=[], content_hash="", config=define_config()
)
answers = []
take_run = child.Child.take_run
def watched(self):
    order = take_run(self)
    answers.append(order is not None)
    return order
child.Child.take_run = watched
before = state()
rehearsal.rehearse(capture, imported)
gc.collect()
after = state()
print(json.dumps([before, after, answers]))
"""


def test_a_rehearsal_runs_tasks_and_leaves_no_trace() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", _PROGRAM],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    before, after, answers = cast("list[list[object]]", json.loads(done.stdout))
    assert done.stderr == ""
    assert before == after
    assert len(answers) >= 30
    assert all(answers)
