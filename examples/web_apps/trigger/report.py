"""What the web applications leave to a worker: a report, line by line."""

import asyncio

from pydantic import BaseModel

from runwell import metadata, task


class ReportRequest(BaseModel):
    """What is wanted: a title, and how many lines."""

    title: str
    lines: int = 3


class Report(BaseModel):
    """What comes out."""

    text: str


@task(id="write-report")
async def write_report(request: ReportRequest) -> Report:
    """Write a report, and say after each line how far it is."""
    lines = [request.title]
    for number in range(1, request.lines + 1):
        await asyncio.sleep(0.05)
        lines.append(f"line {number}")
        metadata.set("done", number)
    return Report(text="\n".join(lines))
