"""Lines that commands print: plain for programs, coloured for people."""

import pytest

from runwell.cli.output import Output, styled

_PARTS = ("12:00 ", styled("COMPLETED", "green"), styled("", "bold"), " [b]x\a[/b]")


def test_a_line_for_a_program_is_plain(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    Output().line(*_PARTS)
    assert capsys.readouterr().out == "12:00 COMPLETED [b]x[/b]\n"


def test_a_line_for_people_has_its_styles(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    Output().line(*_PARTS)
    assert capsys.readouterr().out == "12:00 \x1b[32mCOMPLETED\x1b[0m [b]x[/b]\n"


def test_who_wants_no_colours_gets_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    Output().note(styled("COMPLETED", "green"), styled("x", "bold red"))
    assert capsys.readouterr().err == "COMPLETED\x1b[1mx\x1b[0m\n"
