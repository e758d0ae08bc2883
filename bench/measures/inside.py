"""What a call inside of a run costs the task, and what `import runwell` costs a program."""

import asyncio
import sys
from typing import Any, cast

from bench.figures import Figure, Section
from bench.instance import open_instance
from bench.stats import median
from runwell import configure, tasks

_BARS = {"metadata.set": 20, "metadata.increment": 20, "logger.info": 20, "print": 20}
# Of the processor: how long it takes by the clock says how busy the machine is.
_IMPORT = """
import time
start = time.process_time()
import runwell
print((time.process_time() - start) * 1000)
"""


async def measure(*, is_quick: bool) -> Section:
    """One run that makes each call again and again, and fresh interpreters that import."""
    rounds = 2_000 if is_quick else 10_000
    repetitions = 3 if is_quick else 7
    found: list[dict[str, float]] = []
    async with open_instance() as instance:
        configure(base_url=instance.url, secret_key=instance.secret_key)
        for _ in range(repetitions):
            run = await tasks.trigger_and_poll("inside", rounds, poll_interval=0.1)
            found.append(cast("dict[str, float]", cast("Any", run.output)))
    imports = [await _import_ms() for _ in range(2 * repetitions)]
    return Section(
        title="Inside a run",
        how=f"Processor time of the task for each of {rounds:,} calls in a row, the median of "
        f"{repetitions} runs; of a fresh interpreter for `import runwell`.",
        figures=[
            *(
                Figure(
                    name=name,
                    value=median([each[name] for each in found]),
                    unit="us",
                    bar=_BARS.get(name),
                )
                for name in found[0]
            ),
            Figure(name="`import runwell`", value=median(imports), unit="ms", bar=50),
        ],
    )


async def _import_ms() -> float:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _IMPORT, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    return float(output)
