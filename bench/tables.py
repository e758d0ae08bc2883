"""Tables that read well in a terminal and are Markdown too."""

from collections.abc import Sequence


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns; all but the first column to the right."""
    cells = [list(header), *[list(row) for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    rule = [
        "-" * widths[0],
        *(f"{'-' * (width - 1)}:" for width in widths[1:]),
    ]
    lines: list[str] = []
    for row in (cells[0], rule, *cells[1:]):
        first = row[0].ljust(widths[0])
        rest = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append(f"| {' | '.join([first, *rest])} |")
    return "\n".join(lines) + "\n"
