"""The examples of the documentation: fenced blocks of a page, read into a project that can run.

A block of Python has a `title`, the file it stands for. Files in `trigger/` are task files, those
in `tests/` are for pytest, those in other folders are modules, the config file is one, and any
other is a program that is run in the project's folder, in the order of the page. A block `output`
after a program is what it prints; `...` stands for anything.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONFIG_FILE = "trigger_config.py"
_PLAIN_CONFIG = 'from runwell import define_config\n\nconfig = define_config(dirs=["trigger"])\n'
_FENCE = re.compile(r"^```(\w*)(.*?)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block: its language, its title, and the line of the page on which it begins."""

    language: str
    title: str | None
    line: int
    text: str


@dataclass(kw_only=True)
class Program:
    """A file that is run, and what it prints (None: anything)."""

    title: str
    line: int
    output: str | None = None


@dataclass(kw_only=True)
class Page:
    """A page with the project that its blocks make up."""

    path: Path
    blocks: list[Block] = field(default_factory=list[Block])

    @property
    def name(self) -> str:
        """The path in the repository."""
        return self.path.relative_to(ROOT).as_posix()

    @property
    def programs(self) -> list[Program]:
        """What is run, in the page's order."""
        found: list[Program] = []
        for block in self.blocks:
            if block.language == "python" and block.title and is_program(block.title):
                found.append(Program(title=block.title, line=block.line))
            elif block.language == "output" and found:
                found[-1].output = block.text
        return found

    @property
    def commands(self) -> list[tuple[int, str]]:
        """The commands of `runwell` in console blocks, with their lines."""
        return [
            (block.line, command)
            for block in self.blocks
            if block.language == "console"
            for command in re.findall(
                r"(?<![\w/.-])runwell [^\n\"')|>&#]*(?:'[^']*'[^\n|>&]*)?", block.text
            )
        ]

    def write_project(self, folder: Path) -> None:
        """Write the page's files, and a config file if it has none."""
        (folder / "trigger").mkdir(parents=True)
        (folder / CONFIG_FILE).write_text(_PLAIN_CONFIG, encoding="utf-8")
        for block in self.blocks:
            if block.language == "python" and block.title:
                file = folder / block.title
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(block.text, encoding="utf-8")


def is_program(title: str) -> bool:
    """Whether a file is run, and not imported as a task file, a module or a config file."""
    return "/" not in title and title != CONFIG_FILE


def read_page(path: Path) -> Page:
    """The blocks of a page."""
    text = path.read_text(encoding="utf-8")
    page = Page(path=path)
    for match in _FENCE.finditer(text):
        title = _TITLE.search(match[2])
        page.blocks.append(
            Block(
                language=match[1],
                title=title[1] if title else None,
                line=text.count("\n", 0, match.start()) + 1,
                text=match[3],
            )
        )
    return page


def list_pages() -> list[Page]:
    """Every page with a block of Python or of a terminal."""
    paths = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    pages = [read_page(path) for path in paths]
    wanted = {"python", "console"}
    return [page for page in pages if wanted & {block.language for block in page.blocks}]
