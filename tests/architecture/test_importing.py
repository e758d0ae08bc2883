"""`import runwell` is cheap: it loads nothing of the server or the CLI, and opens nothing."""

import json
import subprocess
import sys

FOREIGN = {"asyncpg", "starlette", "uvicorn", "uvloop", "jinja2", "click", "rich", "watchfiles"}
MOST_MILLISECONDS = 100
SAMPLES = 7

# What an import does besides defining names is seen by an audit hook.
WATCH = """
import sys, time, json
seen = []
def watch(event, args):
    if event in ("socket.connect", "socket.bind", "subprocess.Popen", "os.fork", "os.system"):
        seen.append(event)
    elif event == "open" and not str(args[0]).endswith((".py", ".pyc", ".so", ".dylib", ".zip")):
        seen.append(f"open {args[0]} {args[1]}" if "w" in str(args[1]) else "")
    elif event == "_thread.start_new_thread":
        seen.append(event)
sys.addaudithook(watch)
import runwell
from runwell import *
print(json.dumps({"modules": sorted(sys.modules), "seen": [s for s in seen if s]}))
"""
# Of the processor: how long it takes by the clock says how busy the machine is.
TIME = "import time; s = time.process_time(); import {}; print(time.process_time() - s)"


def run_fresh(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_public_name_loads_anything_of_the_server_or_the_cli() -> None:
    answer = json.loads(run_fresh(WATCH))
    modules = {name.partition(".")[0] for name in answer["modules"]}
    assert not modules & FOREIGN
    ours = [name for name in answer["modules"] if name.startswith("runwell.")]
    sides = {".".join(name.split(".")[:2]) for name in ours}
    assert not sides & {"runwell.engine", "runwell.server", "runwell.app", "runwell.cli"}


def test_no_public_name_opens_or_starts_anything() -> None:
    assert json.loads(run_fresh(WATCH))["seen"] == []


def test_no_public_name_reads_the_environment() -> None:
    code = """
import os
class Watched(type(os.environ)):
    def __getitem__(self, key):
        if key.startswith(("TRIGGER_", "RUNWELL_", "DATABASE_")):
            raise SystemExit(f"read {key}")
        return super().__getitem__(key)
os.environ.__class__ = Watched
from runwell import *
"""
    assert run_fresh(code) == ""


def test_import_runwell_costs_less_than_a_tenth_of_a_second() -> None:
    # The fastest of several: the others say how busy the machine is.
    fastest = min(float(run_fresh(TIME.format("runwell"))) for _ in range(SAMPLES))
    assert fastest * 1000 < MOST_MILLISECONDS
