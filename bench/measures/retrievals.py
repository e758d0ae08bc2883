"""How many runs can be retrieved in a second, with a secret key and with a public access token."""

from datetime import UTC, datetime

from bench.figures import Figure, Section
from bench.instance import Instance, open_instance
from bench.load import Job, Outcome, run_in_process
from bench.stats import median, percentile
from bench.tables import markdown_table
from bench.versions import register_version
from runwell.core.public_tokens import sign_token

_ROUNDS = 3
_CLIENTS = 8
_FAR = 4_000_000_000
_BODY = {"payload": '{"customer":"cus_4711"}', "options": {"payloadType": "application/json"}}


async def measure(*, is_quick: bool) -> Section:
    """Retrieve one run again and again."""
    found: dict[str, list[tuple[Outcome, dict[str, float]]]] = {"secret key": [], "token": []}
    requests = 600 if is_quick else 4000
    async with open_instance(worker=False, RUNWELL_PUBLIC_RATE_LIMIT="off") as instance:
        connection = await instance.connect()
        await register_version(connection, ["noop"])
        run_id = (await connection.post("/api/v1/tasks/noop/trigger", _BODY))["id"]
        claims = await connection.post("/api/v1/auth/jwt/claims", {})
        token = sign_token(
            instance.secret_key,
            claims,
            scopes=[f"read:runs:{run_id}"],
            expires_at=_FAR,
            now=datetime.now(UTC),
        )
        credentials = {"secret key": instance.secret_key, "token": token}
        for _ in range(1 if is_quick else _ROUNDS):
            for name, credential in credentials.items():
                found[name].append(await _load(instance, run_id, credential, requests))
        connection.close()
    rows = [
        [
            name,
            *(
                f"{median([percentile(outcome.latencies_ms, part) for outcome, _ in outcomes]):.2f}"
                for part in (0.5, 0.95)
            ),
            *(f"{median([cpu[part] for _, cpu in outcomes]):.0f}" for part in outcomes[0][1]),
        ]
        for name, outcomes in found.items()
    ]
    parts = [f"{part} CPU us" for part in found["token"][0][1]]
    return Section(
        title="Retrievals",
        how=f"`GET /api/v3/runs/ID` by {_CLIENTS} clients in closed loops from a process of its "
        "own; the median of the rounds.",
        figures=[
            Figure(
                name=f"retrievals with a {name}",
                value=median([outcome.rate for outcome, _ in outcomes]),
                unit="/s",
                bar=1500 if name == "secret key" else None,
                more_is_better=True,
                digits=0,
            )
            for name, outcomes in found.items()
        ],
        tables=[markdown_table(["one retrieval", "p50 ms", "p95 ms", *parts], rows)],
    )


async def _load(
    instance: Instance, run_id: str, credential: str, requests: int
) -> tuple[Outcome, dict[str, float]]:
    before = instance.cpu_ns()
    outcome = await run_in_process(
        Job(
            port=instance.port,
            path=f"/api/v3/runs/{run_id}",
            body="",
            method="GET",
            clients=_CLIENTS,
            requests=requests,
            secret_key=credential,
        )
    )
    after = instance.cpu_ns()
    return outcome, {part: (after[part] - before[part]) / 1000 / outcome.requests for part in after}
