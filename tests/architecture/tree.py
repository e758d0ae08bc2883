"""Where the parts of this repository are, for the tests that read them."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src/runwell"
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"


def list_modules(*folders: str) -> list[Path]:
    """Every Python file below these folders of the repository."""
    return sorted(
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        if not {"__pycache__", ".venv", ".runwell"} & set(path.parts)
    )


def parse(path: Path) -> ast.Module:
    """The syntax tree of a module."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def show(path: Path) -> str:
    """A path as a reader of the repository writes it."""
    return path.relative_to(ROOT).as_posix()


def read_reference() -> str:
    """All reference pages as one text."""
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(REFERENCE.rglob("*.md")))
