"""The machine and the versions that a measurement was made with."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def describe_machine() -> str:
    """Processor, cores, memory, kernel and Python, as one line."""
    return (
        f"{_processor()}, {len(os.sched_getaffinity(0))} cores, {_memory_gb():.0f} GB memory, "
        f"{platform.system()} {_kernel()}, "
        f"{platform.python_implementation()} {platform.python_version()}"
    )


def describe_versions(*packages: str) -> str:
    """The installed versions of packages, as one line."""
    return ", ".join(f"{package} {_version(package)}" for package in packages)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _kernel() -> str:
    # Without what a distribution or host adds to it.
    return platform.release().partition("-")[0]


def _memory_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
