"""Analyses the modules of Python's standard library, each in a run of its own.

    python examples/stdlib_analysis/demo.py

Starts a server and a worker as one would in two terminals, triggers a few hundred runs, shows how
they go, and ends. Everything stays in `.runwell/` beside this file, to be looked at afterwards.
"""

import argparse
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from platform_processes import DemoFailedError, Platform
from report import Progress, show_log, show_next, show_summary
from trigger.analyse import Analysis, Module, analyse_module, is_flaky

from runwell import Run, RunHandle
from runwell.sync import runs

HERE = Path(__file__).parent
BROKEN = Module(name="broken", path=str(HERE / "samples" / "broken.py.txt"))
#: Parts of the standard library that not every Python has, or that are mostly data.
LEFT_OUT = {"test", "tests", "idlelib", "lib2to3", "turtledemo", "site-packages", "ensurepip"}
#: A retry comes after some hundred milliseconds; all else is a matter of seconds.
LIMIT_SECONDS = 300.0
PAGE_SIZE = 100


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo and return its exit status."""
    options = parse_arguments(arguments)
    try:
        with Platform(HERE, options.data_dir) as platform:
            return analyse_library(platform, options.limit)
    except DemoFailedError as error:
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("\nstopped; `make dev` goes on with the runs that are left", file=sys.stderr)
        return 130
    return 1


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--limit", type=int, default=400, help="modules at most (default: 400)")
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=HERE / ".runwell",
        help="where the platform keeps its data (default: .runwell beside this file)",
    )
    return parser.parse_args(arguments)


def find_modules(limit: int) -> list[Module]:
    """Modules of the standard library, spread over all of it when there are more than `limit`."""
    library = Path(sysconfig.get_paths()["stdlib"])
    found = [
        Module(name=".".join(path.relative_to(library).with_suffix("").parts), path=str(path))
        for path in sorted(library.rglob("*.py"))
        if not LEFT_OUT.intersection(path.relative_to(library).parts)
    ]
    step = max(1, len(found) / limit)
    return [found[int(number * step)] for number in range(min(limit, len(found)))]


def analyse_library(platform: Platform, limit: int) -> int:
    """Trigger all runs, follow them to their end, and show what came out."""
    modules = [*find_modules(limit - 1), BROKEN]
    tag = f"demo_{time.strftime('%Y%m%d_%H%M%S')}"
    print(f"server   {platform.url}")
    print(f"worker   version {platform.version}, {platform.capacity} runs at once")
    started = time.monotonic()
    handles = trigger_all(modules, tag)
    print(f"trigger  {len(handles)} runs in {time.monotonic() - started:.1f} s, tagged {tag}")
    follow(platform, tag, len(handles))
    seconds = time.monotonic() - started
    ended = [runs.retrieve(handle) for handle in handles]
    show_summary(ended, seconds)
    flaky = next((run for run in ended if run.attempt_count > 1 and run.is_success), ended[0])
    show_log(flaky, runs.logs(flaky.id).data)
    show_next(HERE, platform.data_dir, tag, flaky.id)
    return check(modules, ended)


def trigger_all(modules: list[Module], tag: str) -> list[RunHandle[Analysis]]:
    """One run for each module."""
    return [
        analyse_module.sync.trigger(module, tags=[tag, module.name.partition(".")[0]])
        for module in modules
    ]


def follow(platform: Platform, tag: str, count: int) -> None:
    """Show how many runs have which status until all have ended."""
    deadline = time.monotonic() + LIMIT_SECONDS
    with Progress(count) as progress:
        while True:
            listed = list(runs.list(tag=tag, limit=PAGE_SIZE))
            progress.show(Counter(run.status for run in listed))
            if len(listed) == count and all(run.is_completed for run in listed):
                return
            platform.check()
            if time.monotonic() > deadline:
                left = sum(not run.is_completed for run in listed)
                raise DemoFailedError(f"{left} runs have not ended in {LIMIT_SECONDS:.0f} s")
            time.sleep(0.3)


def check(modules: list[Module], ended: list[Run[Analysis]]) -> int:
    """0 when the runs ended as they were meant to, else 1 and what is different."""
    wrong: list[str] = []
    for module, run in zip(modules, ended, strict=True):
        status = "FAILED" if module is BROKEN else "COMPLETED"
        attempts = 3 if module is BROKEN else 1 + is_flaky(module.name)
        if (run.status, run.attempt_count) != (status, attempts):
            wrong.append(
                f"{run.id} ({module.name}) is {run.status} after {run.attempt_count} attempts, "
                f"and not {status} after {attempts}"
            )
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
