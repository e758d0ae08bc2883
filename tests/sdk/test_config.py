"""`define_config`: what a project may say, and what is refused."""

from typing import Any

import pytest

from runwell import Retries, Retry, Telemetry, define_config, task, timeout


def test_a_config_without_options_has_the_documented_defaults() -> None:
    config = define_config()
    assert config.dirs == ("trigger",)
    assert config.retries == Retries(enabled_in_dev=True, default=None)
    assert (config.project, config.machine, config.max_duration) == (None, None, None)
    assert config.log_level == "info"
    assert config.task_defaults.retry is None


def test_retries_are_on_everywhere_unless_dev_is_left_out() -> None:
    assert define_config().may_retry_in("DEVELOPMENT")


def test_a_config_keeps_what_it_is_given() -> None:
    config = define_config(
        project="proj_a",
        dirs=["./trigger", "src/jobs/"],
        ignore_patterns=[],
        retries=Retries(enabled_in_dev=False, default=Retry(max_attempts=9)),
        machine="large-1x",
        max_duration=timeout.NONE,
        log_level="none",
    )
    assert config.project == "proj_a"
    assert config.dirs == ("trigger", "src/jobs")
    assert config.ignore_patterns == ()
    assert not config.may_retry_in("DEVELOPMENT")
    assert config.may_retry_in("PRODUCTION")
    defaults = config.task_defaults
    assert defaults.retry is not None
    assert (defaults.retry.max_attempts, defaults.machine, defaults.max_duration) == (
        9,
        "large-1x",
        2_147_483_647,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dirs": "trigger"}, "dirs='trigger': it takes a list of texts"),
        ({"dirs": [5]}, "dirs=.5.: it takes a list of texts"),
        ({"dirs": ["/trigger"]}, "dirs: '/trigger' must be a folder inside"),
        ({"dirs": ["."]}, "dirs: '.' must be a folder inside"),
        ({"dirs": ["a/../../b"]}, "must be a folder inside"),
        ({"ignore_patterns": "*"}, "ignore_patterns"),
        ({"retries": {"enabled_in_dev": True}}, "retries=.*it takes Retries"),
        ({"machine": "huge"}, "machine='huge'"),
        ({"max_duration": 1}, "max_duration=1"),
        ({"log_level": "loud"}, "log_level='loud': choose one of none, error"),
    ],
)
def test_a_bad_option_is_refused_with_its_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        define_config(**options)


def test_an_unknown_option_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="on_begin"):
        define_config(on_begin=print)  # pyright: ignore[reportCallIssue] (what is refused)


def test_a_ttl_of_the_config_holds_for_tasks_that_have_none() -> None:
    @task(id="plain")
    def plain() -> None: ...

    @task(id="patient", ttl=0)
    def patient() -> None: ...

    defaults = define_config(ttl="5m").task_defaults
    assert plain.manifest("t.py", "plain", defaults).ttl == 300
    assert patient.manifest("t.py", "patient", defaults).ttl == 0
    assert plain.manifest("t.py", "plain").ttl is None


def test_telemetry_takes_what_has_the_methods_of_its_kind() -> None:
    class Exporter:
        def export(self, spans: object) -> None: ...

        def shutdown(self) -> None: ...

    exporter = Exporter()
    assert define_config(telemetry=Telemetry(exporters=[exporter])).telemetry.exporters == [
        exporter
    ]
    assert define_config().telemetry == Telemetry()
    with pytest.raises(ValueError, match=r"exporters: .* must be an object with export\(\)"):
        Telemetry(exporters=[object()])
    with pytest.raises(ValueError, match=r"log_exporters=.* it takes a list"):
        Telemetry(log_exporters=exporter)  # pyright: ignore[reportArgumentType] (what users do)
    with pytest.raises(ValueError, match=r"must be an object with instrument\(\)"):
        Telemetry(instrumentations=[type("Made", (), {"instrument": None})])
    with pytest.raises(ValueError, match=r"telemetry=1: it takes Telemetry\("):
        define_config(telemetry=1)  # pyright: ignore[reportArgumentType] (what users do)
