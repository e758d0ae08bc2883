"""A task that does everything at which a process can die."""

from trigger.chaos import double

from runwell import Retry, idempotency_keys, item, metadata, task, wait

_PATIENT = Retry(max_attempts=20, min_timeout=0.05, factor=1, randomize=False)


@task(id="tour", retry=_PATIENT)
async def tour(token: str) -> list[object]:
    """Change metadata, print, have a child and a batch, wait for a date and for a token."""

    def key(name: str) -> str:
        return idempotency_keys.create(name, scope="run")

    metadata.set("step", "begun")
    await metadata.flush()
    print("on tour")
    first = await double.trigger_and_wait(1, idempotency_key=key("first")).unwrap()
    batch = await double.batch_trigger_and_wait(
        [item(number, idempotency_key=key(f"{number}")) for number in (2, 3)]
    )
    await wait.for_(seconds=0.05)
    answer = await wait.for_token(token).unwrap()
    metadata.set("step", "done")
    return [first, *(run.unwrap() for run in batch.runs), answer]
