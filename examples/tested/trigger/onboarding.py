"""Onboarding of a user: a welcome, three days of patience, a reminder."""

from typing import TypedDict

from runwell import Retry, logger, metadata, task, wait


class User(TypedDict):
    """Who signed up."""

    name: str


@task(id="send-mail", retry=Retry(max_attempts=3, min_timeout="1m"))
def send_mail(text: str) -> str:
    raise ConnectionError(f"there is no mail server for {text!r}")


@task(id="onboard")
async def onboard(user: User) -> list[str]:
    first = await send_mail.trigger_and_wait(f"Welcome, {user['name']}").unwrap()
    metadata.set("step", "waiting")
    await wait.for_(days=3)
    logger.info("patience is over", user=user["name"])
    second = await send_mail.trigger_and_wait(f"Are you there, {user['name']}?").unwrap()
    metadata.set("step", "done")
    return [first, second]
