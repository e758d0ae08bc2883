"""How many runs can be triggered in a second in batches of a thousand."""

import json

from bench.figures import Figure, Section
from bench.instance import Instance, open_instance
from bench.load import Job, run_in_process
from bench.stats import median
from bench.tables import markdown_table
from bench.versions import register_version

_ITEMS = 1_000
_ROUNDS = 3
_BODY = json.dumps(
    {"items": [{"task": "noop", "payload": json.dumps({"number": n})} for n in range(_ITEMS)]}
)


async def measure(*, is_quick: bool) -> Section:
    """Trigger with no worker there, so that only the trigger is measured."""
    batches = 5 if is_quick else 15
    rows: list[list[str]] = []
    rates: dict[int, float] = {}
    async with open_instance(worker=False) as instance:
        connection = await instance.connect()
        await register_version(connection, ["noop"])
        connection.close()
        await _load(instance, clients=1, batches=2)
        for clients in (1, 4):
            found = [
                await _load(instance, clients=clients, batches=batches)
                for _ in range(1 if is_quick else _ROUNDS)
            ]
            rates[clients] = median([rate for rate, _ in found])
            rows.append(
                [
                    f"{clients} client{'s' if clients > 1 else ''}",
                    f"{rates[clients]:,.0f}",
                    *(
                        f"{median([cpu[part] for _, cpu in found]):.0f}"
                        for part in ("server", "PostgreSQL")
                    ),
                ]
            )
    header = ["batches of 1,000", "runs/s", "server CPU us a run", "PostgreSQL CPU us a run"]
    return Section(
        title="Batches",
        how=f"HTTP requests with {_ITEMS:,} items each, one after the other and from four clients, "
        "no worker; the median of the rounds.",
        figures=[
            Figure(
                name=f"triggered in batches, {'one by one' if clients == 1 else 'four clients'}",
                value=rate,
                unit="runs/s",
                bar=6000 if clients == 4 else None,
                more_is_better=True,
                digits=0,
            )
            for clients, rate in rates.items()
        ],
        tables=[markdown_table(header, rows)],
    )


async def _load(
    instance: Instance, *, clients: int, batches: int
) -> tuple[float, dict[str, float]]:
    before = instance.cpu_ns()
    outcome = await run_in_process(
        Job(
            port=instance.port,
            path="/api/v1/tasks/batch",
            body=_BODY,
            clients=clients,
            requests=batches,
            secret_key=instance.secret_key,
        )
    )
    after = instance.cpu_ns()
    runs = outcome.requests * _ITEMS
    return outcome.rate * _ITEMS, {
        part: (after[part] - before[part]) / 1000 / runs for part in after
    }
