from datetime import timedelta

from trigger.onboarding import onboard, send_mail

from runwell.testing import RunwellTest


def test_a_user_hears_twice_within_three_days(runwell_test: RunwellTest) -> None:
    sent: list[str] = []

    def keep(text: str) -> str:
        sent.append(text)
        return f"mail {len(sent)}"

    runwell_test.replace(send_mail, keep)
    run = runwell_test.run(onboard, {"name": "Ada"}, tags=["user_1"]).assert_completed()
    assert run.output == ["mail 1", "mail 2"]
    assert sent == ["Welcome, Ada", "Are you there, Ada?"]
    assert timedelta(days=3) <= run.elapsed < timedelta(days=3, minutes=1)
    assert [child.task_id for child in run.children] == ["send-mail", "send-mail"]
    assert run.messages == ["patience is over"]
    assert run.metadata == {"step": "done"}
    assert run.tags == ["user_1"]


def test_mail_is_tried_three_times(runwell_test: RunwellTest) -> None:
    run = runwell_test.run(send_mail, "Hello").assert_failed("no mail server")
    assert run.attempts == 3
    assert run.elapsed >= timedelta(minutes=2)
