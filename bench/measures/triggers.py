"""How many runs can be triggered in a second, and what each costs the server."""

from bench.figures import Figure, Section
from bench.instance import Instance, open_instance
from bench.load import Job, Outcome, run_in_process
from bench.stats import median, percentile
from bench.tables import markdown_table
from bench.versions import register_version

_ROUNDS = 3
_BATCH_ITEMS = 1_000
_BODY = (
    r'{"payload":"{\"customer\":\"cus_4711\",\"items\":[1,2,3],\"note\":\"a short text\"}",'
    r'"options":{"payloadType":"application/json","tags":["user_1","org_2"]}}'
)

_BATCH = '{"items":[' + ",".join([_BODY.replace("{", '{"task":"noop",', 1)] * _BATCH_ITEMS) + "]}"


async def measure(*, is_quick: bool) -> Section:
    """Trigger with no worker there, so that only the trigger is measured."""
    requests = {1: 400 if is_quick else 2000, 8: 800 if is_quick else 5000}
    outcomes: dict[int, list[tuple[Outcome, dict[str, float]]]] = {1: [], 8: []}
    async with open_instance(worker=False) as instance:
        connection = await instance.connect()
        await register_version(connection, ["noop"])
        await _load(instance, clients=8, requests=400)
        for _ in range(1 if is_quick else _ROUNDS):
            for clients, found in outcomes.items():
                found.append(await _load(instance, clients=clients, requests=requests[clients]))
        batches = [
            await _load(instance, clients=2, requests=10 if is_quick else 40, is_batch=True)
            for _ in range(1 if is_quick else _ROUNDS)
        ]
        connection.close()
    rows = [
        [
            f"{clients} client{'s' if clients > 1 else ''}",
            *(
                f"{median([percentile(outcome.latencies_ms, part) for outcome, _ in found]):.2f}"
                for part in (0.5, 0.95, 0.99)
            ),
            *(
                f"{median([cpu[part] for _, cpu in found]):.0f}"
                for part in ("server", "PostgreSQL")
            ),
        ]
        for clients, found in outcomes.items()
    ]
    rows.append(
        [
            f"a batch of {_BATCH_ITEMS:,}, two clients",
            *(
                f"{median([percentile(outcome.latencies_ms, part) for outcome, _ in batches]):.0f}"
                for part in (0.5, 0.95, 0.99)
            ),
            *(
                f"{median([cpu[part] for _, cpu in batches]) / _BATCH_ITEMS:.0f} a run"
                for part in ("server", "PostgreSQL")
            ),
        ]
    )
    header = ["one trigger", "p50 ms", "p95 ms", "p99 ms", "server CPU us", "PostgreSQL CPU us"]
    return Section(
        title="Triggers",
        how="HTTP requests in closed loops from a cheap client in a process of its own, no worker; "
        "the median of the rounds.",
        figures=[
            Figure(
                name="triggers, one by one",
                value=median([outcome.rate for outcome, _ in outcomes[1]]),
                unit="/s",
                bar=400,
                more_is_better=True,
                digits=0,
            ),
            Figure(
                name="triggers, eight clients",
                value=median([outcome.rate for outcome, _ in outcomes[8]]),
                unit="/s",
                bar=1000,
                more_is_better=True,
                digits=0,
            ),
            Figure(
                name=f"runs triggered in batches of {_BATCH_ITEMS:,}",
                value=_BATCH_ITEMS * median([outcome.rate for outcome, _ in batches]),
                unit="/s",
                bar=6000,
                more_is_better=True,
                digits=0,
            ),
        ],
        tables=[markdown_table(header, rows)],
    )


async def _load(
    instance: Instance, *, clients: int, requests: int, is_batch: bool = False
) -> tuple[Outcome, dict[str, float]]:
    before = instance.cpu_ns()
    outcome = await run_in_process(
        Job(
            port=instance.port,
            path="/api/v1/tasks/batch" if is_batch else "/api/v1/tasks/noop/trigger",
            body=_BATCH if is_batch else _BODY,
            clients=clients,
            requests=requests,
            secret_key=instance.secret_key,
        )
    )
    after = instance.cpu_ns()
    return outcome, {part: (after[part] - before[part]) / 1000 / outcome.requests for part in after}
