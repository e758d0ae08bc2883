"""`runwell trigger`: one run, from the terminal."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, cast

import click

from runwell.cli.api import Api
from runwell.cli.following import (
    WAITING_FOR_DEPLOY,
    follow_run,
    print_end,
    unknown_task_text,
)
from runwell.cli.options import read_json_option, with_api
from runwell.cli.output import Output, end, styled, with_output
from runwell.client.transport import ApiError
from runwell.core.errors import InvalidPayloadError
from runwell.core.machines import MachineName
from runwell.core.payloads import Json, parse_json

_BATCH_ITEMS: Final = 1_000
_BATCH_BYTES: Final = 4 * 1024 * 1024
_EPILOG = """\b
Examples:
  runwell trigger hello
  runwell trigger hello --payload '{"name": "Ada"}' --follow
  runwell trigger hello --payload @payload.json --tag user_1 --tag import
  date | jq -R . | runwell trigger hello --payload -
  runwell trigger hello --batch names.jsonl --tag import
  runwell trigger hello --delay 10m --ttl 1h --idempotency-key order-17
"""


@click.command(short_help="Trigger a run of a task.", epilog=_EPILOG)
@click.argument("task")
@click.option(
    "--payload", "-p", metavar="JSON|@FILE|-", help="The payload; - reads it from standard input."
)
@click.option(
    "--batch",
    "batch",
    metavar="FILE|-",
    help="A run for each line of a file, which is its payload as JSON.",
)
@click.option(
    "--follow", "-f", is_flag=True, help="Show its log until it ends; exit with 1 if it failed."
)
@click.option("--queue", metavar="NAME", help="Another queue than the task's own.")
@click.option("--concurrency-key", metavar="KEY", help="The part of the queue, as in one per user.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="A tag; may be repeated.")
@click.option("--delay", metavar="DURATION|DATE", help="Not before then: 10m, or an ISO date.")
@click.option("--ttl", metavar="DURATION", help="Expire it unless it has started by then.")
@click.option("--idempotency-key", metavar="KEY", help="The same key gives the same run again.")
@click.option("--idempotency-key-ttl", metavar="DURATION", help="How long that key holds.")
@click.option("--max-attempts", type=click.IntRange(1, 250), help="Attempts in all.")
@click.option("--max-duration", type=click.IntRange(min=5), help="Seconds until it is stopped.")
@click.option("--machine", type=click.Choice([m.value for m in MachineName]), help="Its machine.")
@click.option("--metadata", metavar="JSON|@FILE", help="The metadata that it starts with.")
@click.option("--test", is_flag=True, help="Mark it as a test.")
@with_output
@with_api
def trigger(
    output: Output,
    api: Api,
    task: str,
    payload: str | None,
    batch: str | None,
    follow: bool,
    **given: object,
) -> None:
    """Trigger a run of TASK (its id) and print the run's id.

    The run is stored when this returns: a worker starts it as soon as it can. With --batch there is
    a run for each line, in batches of up to 1,000 that are stored in one step each.
    """
    if batch is not None:
        if payload is not None or follow or given["idempotency_key"]:
            raise click.UsageError(
                "--batch can't go together with --payload, --follow or --idempotency-key"
            )
        _trigger_lines(output, api, task, _read_lines(batch), _read_options(given))
    else:
        _trigger_one(output, api, task, payload, _read_options(given), follow=follow)


def _trigger_one(
    output: Output,
    api: Api,
    task: str,
    payload: str | None,
    options: dict[str, Json],
    *,
    follow: bool,
) -> None:
    text = None if payload is None else read_json_option(payload, "--payload")
    answer = api.trigger(task, text, options)
    if follow and output.is_json:
        output.json({"event": "triggered", "id": answer.id, "isCached": answer.is_cached})
    elif output.is_json:
        output.document({"id": answer.id, "isCached": answer.is_cached})
    elif not follow:
        output.raw(answer.id)
    if answer.is_cached:
        output.note(styled("not new: ", "yellow"), "this idempotency key has that run already")
    if not follow:
        if not output.is_json:
            _warn_of_unknown_task(output, api, answer.id)
        output.note(styled(f"look at it: {api.url}/runs/{answer.id}", "dim"))
        return
    if not output.is_json:
        output.note(styled("run ", "dim"), answer.id)
    try:
        run = follow_run(output, api, answer.id)
    except KeyboardInterrupt:
        output.note(f"\nthe run goes on: runwell runs logs {answer.id} --follow")
        end(130)
    print_end(output, run)
    end(0 if run.is_success else 1)


def _warn_of_unknown_task(output: Output, api: Api, run_id: str) -> None:
    # The run is stored: that it can't be read just now is no failure of this command.
    with contextlib.suppress(ApiError):
        run = api.retrieve(run_id)
        if run.status == WAITING_FOR_DEPLOY:
            output.note(styled("it waits: ", "yellow"), unknown_task_text(run))


def _read_lines(path: str) -> list[str]:
    found: list[str] = []
    name = "standard input" if path == "-" else path
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).expanduser().read_bytes()
        for number, line in enumerate(data.decode().split("\n"), 1):
            if line.strip():
                parse_json(line, what=f"line {number} of {name}")
                found.append(line.strip())
    except OSError as error:
        raise click.UsageError(f"--batch: can't read {name}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise click.UsageError(
            f"{name} is not valid UTF-8: bad byte at position {error.start}"
        ) from None
    except InvalidPayloadError as error:
        raise click.UsageError(str(error)) from None
    if not found:
        raise click.UsageError(f"{name} has no line with a payload")
    return found


def _trigger_lines(
    output: Output, api: Api, task: str, payloads: list[str], options: dict[str, Json]
) -> None:
    done = 0
    for part in _split(payloads):
        made = api.trigger_batch(task, part, options)
        done += len(part)
        if output.is_json:
            output.json({"id": made.id, "runs": [run.id for run in made.runs]})
        else:
            output.raw(made.id)
        output.note(styled(f"{done:,} of {len(payloads):,} runs triggered", "dim"))


def _split(payloads: list[str]) -> Iterator[list[str]]:
    """Parts that the server takes as batches."""
    part: list[str] = []
    size = 0
    for payload in payloads:
        size += len(payload.encode())
        if part and (len(part) == _BATCH_ITEMS or size > _BATCH_BYTES):
            yield part
            part, size = [], len(payload.encode())
        part.append(payload)
    yield part


def _read_options(given: dict[str, object]) -> dict[str, Json]:
    names = {
        "concurrency_key": "concurrencyKey",
        "delay": "delay",
        "ttl": "ttl",
        "idempotency_key": "idempotencyKey",
        "idempotency_key_ttl": "idempotencyKeyTTL",
        "max_attempts": "maxAttempts",
        "max_duration": "maxDuration",
        "machine": "machine",
    }
    options = {wire: cast("Json", given[name]) for name, wire in names.items() if given.get(name)}
    if given["queue"]:
        options["queue"] = {"name": cast("str", given["queue"])}
    if given["tags"]:
        options["tags"] = list(cast("tuple[str, ...]", given["tags"]))
    if given["test"]:
        options["test"] = True
    if given["metadata"]:
        text = read_json_option(cast("str", given["metadata"]), "--metadata")
        value = parse_json(text)
        if not isinstance(value, dict):
            raise click.UsageError('--metadata must be a JSON object, like \'{"source": "cli"}\'')
        options["metadata"] = value
    return options
