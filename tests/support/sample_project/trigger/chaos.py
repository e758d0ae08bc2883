"""Tasks that must come to the same end however often their database is away."""

from typing import TypedDict

from runwell import Retry, ScheduledPayload, idempotency_keys, item, schedules, task, wait

# An attempt may end with a lease that nobody could renew; that says nothing about the task.
_PATIENT = Retry(max_attempts=20, min_timeout=0.05, factor=1, randomize=False)


@task(id="chaos-child", retry=_PATIENT)
async def double(number: int) -> int:
    return 2 * number


@task(id="chaos-parent", retry=_PATIENT)
async def ask_four_children(number: int) -> list[int]:
    """One child, then three as a batch: the same four in each attempt, by their keys."""

    def key(name: str) -> str:
        return idempotency_keys.create(name, scope="run")

    first = await double.trigger_and_wait(number, idempotency_key=key("first")).unwrap()
    batch = await double.batch_trigger_and_wait(
        [item(first + more, idempotency_key=key(f"{more}")) for more in range(3)]
    )
    return [first, *(run.unwrap() for run in batch.runs)]


class Approval(TypedDict):
    """The token that another program completes."""

    token: str
    number: int


@task(id="chaos-token", retry=_PATIENT)
async def wait_for_number(payload: Approval) -> list[object]:
    return [payload["number"], await wait.for_token(payload["token"]).unwrap()]


@schedules.task(id="chaos-scheduled", retry=_PATIENT)
async def tell_schedule(payload: ScheduledPayload) -> str:
    return payload.schedule_id
