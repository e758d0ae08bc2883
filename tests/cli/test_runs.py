"""`trigger`, `runs` and `env` against a real server, without a worker."""

import json
from pathlib import Path

from tests.cli.terminal import runwell, runwell_json


def test_a_run_is_triggered_listed_shown_and_canceled(served: Path) -> None:
    below = served / "trigger"
    payload = '{"name": "Ada [bold]"}'

    triggered = runwell("trigger", "hello", "-p", payload, "--tag", "a", "--tag", "b", folder=below)
    run_id = triggered.stdout.strip()
    listed = runwell("runs", "list", "--tag", "a", folder=below)
    shown = runwell("runs", "show", run_id, folder=below)
    canceled = runwell("runs", "cancel", run_id, folder=below)
    found = runwell_json("runs", "show", run_id, folder=below)

    assert triggered.returncode == listed.returncode == shown.returncode == canceled.returncode == 0
    assert run_id.startswith("run_")
    assert run_id in listed.stdout
    assert "WAITING_FOR_DEPLOY" in listed.stdout
    assert "no version of any task has been registered in the environment dev" in shown.stdout
    assert '{"name":"Ada [bold]"}' in shown.stdout.replace(": ", ":")
    assert "CANCELED" in canceled.stdout
    assert found["status"] == "CANCELED"
    assert found["tags"] == ["a", "b"]


def test_the_options_of_a_trigger_reach_the_run(served: Path) -> None:
    options = ["--delay", "1h", "--ttl", "2h", "--idempotency-key", "k", "--metadata", '{"a": 1}']
    options += ["--max-attempts", "2", "--machine", "micro", "--queue", "slow", "--test"]

    first = runwell_json("trigger", "hello", *options, "--max-duration", "60", folder=served)
    again = runwell_json("trigger", "hello", "--idempotency-key", "k", folder=served)

    run = runwell_json("runs", "show", str(first["id"]), folder=served)
    assert again == {"id": first["id"], "isCached": True}
    assert (run["status"], run["ttl"], run["isTest"]) == ("DELAYED", "2h", True)
    assert (run["idempotencyKey"], run["metadata"]) == ("k", {"a": 1})


def test_a_payload_comes_from_a_file_or_from_standard_input(served: Path) -> None:
    (served / "payload.json").write_text('["from a file"]')

    from_file = runwell("trigger", "hello", "-p", "@payload.json", folder=served)
    from_stdin = runwell("trigger", "hello", "-p", "-", folder=served, stdin='["from stdin"]')

    for done, expected in ((from_file, ["from a file"]), (from_stdin, ["from stdin"])):
        run = runwell_json("runs", "show", done.stdout.strip(), folder=served)
        assert run["payload"] == expected


def test_a_file_of_payloads_is_triggered_in_batches(served: Path) -> None:
    (served / "names.jsonl").write_text('{"name": "Ada"}\n\n"Grace"\n')

    done = runwell("trigger", "hello", "--batch", "names.jsonl", "--tag", "a", folder=served)
    many = "".join(f"{number}\n" for number in range(1_001))
    piped = runwell("trigger", "hello", "--batch", "-", "--json", folder=served, stdin=many)
    (served / "bad.jsonl").write_text("1\nAda\n")
    bad = runwell("trigger", "hello", "--batch", "bad.jsonl", folder=served)
    both = runwell("trigger", "hello", "--batch", "names.jsonl", "-p", "1", folder=served)
    missing = runwell("trigger", "hello", "--batch", "none.jsonl", folder=served)

    assert done.stdout.startswith("batch_")
    assert "2 of 2 runs triggered" in done.stderr
    batches = [json.loads(line) for line in piped.stdout.splitlines()]
    assert [len(batch["runs"]) for batch in batches] == [1_000, 1]
    run = runwell_json("runs", "show", batches[1]["runs"][0], folder=served)
    assert run["payload"] == 1_000
    assert bad.returncode == both.returncode == 2
    assert "line 2 of bad.jsonl is not valid JSON" in bad.stderr
    assert "--batch can't go together with --payload" in both.stderr
    assert "--batch: can't read none.jsonl: No such file" in missing.stderr


def test_a_payload_that_is_no_json_is_refused_with_how_to_write_it(tmp_path: Path) -> None:
    environment = {"TRIGGER_SECRET_KEY": "tr_dev_x"}

    done = runwell("trigger", "hello", "-p", "Ada", folder=tmp_path, environment=environment)
    missing = runwell("trigger", "hello", "-p", "@no", folder=tmp_path, environment=environment)

    assert done.returncode == missing.returncode == 2
    assert """--payload '"Ada"'""" in done.stderr
    assert "can't read no: No such file" in missing.stderr


def test_what_the_server_refuses_is_said_in_its_words(served: Path) -> None:
    delayed = runwell("trigger", "hello", "--delay", "soon", folder=served)
    missing = runwell("runs", "show", "run_nope", folder=served)
    unknown = runwell("runs", "list", "--status", "DONE", folder=served)

    assert delayed.returncode == missing.returncode == unknown.returncode == 1
    assert delayed.stderr.startswith("error: options.delay: 'soon' is neither a duration")
    assert missing.stderr.startswith("error: there is no run run_nope")
    assert "'DONE' is no status" in unknown.stderr


def test_of_several_cancels_those_that_can_be_done_are_done(served: Path) -> None:
    run_id = runwell("trigger", "hello", folder=served).stdout.strip()

    done = runwell("runs", "cancel", "run_nope", run_id, folder=served)

    assert done.returncode == 1
    assert f"{run_id}  CANCELED" in done.stdout
    assert "run_nope" in done.stderr


def test_env_prints_what_other_programs_need(served: Path) -> None:
    local = json.loads((served / ".runwell/local.json").read_text())

    lines = runwell("env", folder=served)
    exported = runwell("env", "--export", folder=served)
    production = runwell_json("env", "--environment", "production", folder=served)
    unknown = runwell("env", "-e", "nope", folder=served)

    expected = f"TRIGGER_API_URL={local['url']}\nTRIGGER_SECRET_KEY={local['secretKey']}\n"
    assert lines.stdout == expected
    assert exported.stdout == "".join(f"export {line}\n" for line in expected.splitlines())
    assert str(production["TRIGGER_SECRET_KEY"]).startswith("tr_prod_")
    assert unknown.returncode == 1
    assert "it has dev, stg, prod" in unknown.stderr


def test_the_environment_wins_over_the_local_server(served: Path) -> None:
    environment = {"TRIGGER_API_URL": "http://127.0.0.1:9", "TRIGGER_SECRET_KEY": "tr_prod_x"}

    done = runwell("env", "-e", "prod", folder=served, environment=environment)

    assert done.stdout == "TRIGGER_API_URL=http://127.0.0.1:9\nTRIGGER_SECRET_KEY=tr_prod_x\n"


def test_a_run_is_replayed_and_a_delayed_one_rescheduled(served: Path) -> None:
    run_id = runwell("trigger", "hello", "-p", '"Ada"', "--delay", "1h", folder=served).stdout

    moved = runwell_json("runs", "reschedule", run_id.strip(), "2h", folder=served)
    again = runwell("runs", "replay", run_id.strip(), "-p", '"Grace"', folder=served)
    refused = runwell("runs", "reschedule", again.stdout.strip(), "2h", folder=served)

    found = runwell_json("runs", "show", again.stdout.strip(), folder=served)
    assert moved["status"] == "DELAYED"
    assert (found["payload"], found["replayOf"]) == ("Grace", run_id.strip())
    assert refused.returncode == 1
    assert "only a delayed run can be rescheduled" in refused.stderr


def test_a_task_that_no_version_has_is_told_of_at_once(served: Path) -> None:
    done = runwell("trigger", "helo", folder=served)

    assert done.returncode == 0
    assert done.stdout.startswith("run_")
    assert "it waits: no version has a task 'helo' yet" in done.stderr


def test_all_runs_that_pass_filters_are_canceled_or_replayed(served: Path) -> None:
    for number in range(3):
        runwell("trigger", "hello", "-p", str(number), "--tag", "many", folder=served)

    unsure = runwell("runs", "cancel", "--tag", "many", folder=served)
    again = runwell_json("runs", "replay", "--tag", "many", "--yes", folder=served)
    canceled = runwell("runs", "cancel", "--tag", "many", "-y", folder=served)
    nothing = runwell("runs", "cancel", "--tag", "many", "-y", folder=served)
    aborted = runwell_json("runs", "abort", str(again["id"]), folder=served)

    assert unsure.returncode == 2
    assert "this would cancel 3 runs: say --yes" in unsure.stderr
    assert (again["status"], again["total"], again["succeeded"]) == ("COMPLETED", 3, 3)
    assert "canceled 6 of 6" in canceled.stdout
    assert "no run matches" in nothing.stderr
    assert aborted["status"] == "COMPLETED"


def test_runs_are_named_by_ids_or_by_filters(served: Path) -> None:
    for arguments in ((), ("run_1", "--status", "QUEUED")):
        done = runwell("runs", "cancel", *arguments, folder=served)
        assert done.returncode == 2
        assert "name runs by their ids, or all that pass filters" in done.stderr
    done = runwell("runs", "replay", "--tag", "a", "-p", "1", folder=served)
    assert "--payload and --follow are for runs that are named" in done.stderr
    done = runwell("runs", "abort", "bulk_x", folder=served)
    assert (done.returncode, "no bulk action bulk_x" in done.stderr) == (1, True)


def test_the_trace_of_a_run_is_shown_as_a_tree(served: Path) -> None:
    run_id = str(runwell_json("trigger", "hello", folder=served)["id"])
    shown = runwell("runs", "trace", run_id, folder=served)
    found = runwell_json("runs", "trace", run_id, folder=served)
    assert shown.stdout == f"hello goes on {run_id}\n"
    assert '"isPartial": true' in json.dumps(found)
