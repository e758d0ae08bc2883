"""Measure Runwell: `python -m bench [NAME...] [--quick] [--no-write]`, about ten minutes for all.

Names are of measurements (latency, triggers, schedules, ...); all without one.
What was measured takes its old place in bench/RESULTS.md, but for quick measurements.
"""

import argparse
import sys
import time

import uvloop

from bench.figures import Section, keep_results
from bench.measures import (
    batches,
    cold_start,
    dequeue,
    drain,
    due_timers,
    fan_out,
    inside,
    keys,
    latency,
    memory,
    realtime,
    retrievals,
    schedules,
    traces,
    triggers,
)
from bench.quiet import Company, wait_until_quiet

_MEASURES = {
    "latency": latency.measure,
    "triggers": triggers.measure,
    "realtime": realtime.measure,
    "retrievals": retrievals.measure,
    "schedules": schedules.measure,
    "batches": batches.measure,
    "drain": drain.measure,
    "fan_out": fan_out.measure,
    "due_timers": due_timers.measure,
    "dequeue": dequeue.measure,
    "keys": keys.measure,
    "inside": inside.measure,
    "traces": traces.measure,
    "memory": memory.measure,
    "cold_start": cold_start.measure,
}

# So many looks in a row, of some hundredths of a second each, must find the machine quiet.
_QUIET_LOOKS = 20


async def _measure(names: list[str], *, is_quick: bool, patience_seconds: float) -> list[Section]:
    sections: list[Section] = []
    for name in names:
        start = time.monotonic()
        # Others may be at work on this machine: a moment is awaited when they are not.
        await wait_until_quiet(patience_seconds, looks=_QUIET_LOOKS)
        company = Company()
        section = await _MEASURES[name](is_quick=is_quick)
        section.company = company.processors()
        sections.append(section)
        sys.stdout.write(section.render() + "\n")
        sys.stdout.flush()
        sys.stderr.write(f"{name} took {time.monotonic() - start:.0f} s\n")
    return sections


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *_MEASURES], metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="fewer samples, nothing kept")
    parser.add_argument("--no-write", action="store_true", help="only print")
    parser.add_argument(
        "--patience",
        type=float,
        default=30,
        metavar="SECONDS",
        help="how long each measurement waits for the machine to be quiet (default: 30)",
    )
    arguments = parser.parse_args()
    names: list[str] = arguments.names or list(_MEASURES)
    sections = uvloop.run(
        _measure(names, is_quick=arguments.quick, patience_seconds=arguments.patience)
    )
    if not arguments.quick and not arguments.no_write:
        keep_results(sections)


if __name__ == "__main__":
    main()
