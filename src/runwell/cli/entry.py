"""Where the command `runwell` starts: it comes with the SDK, and its parts are an extra."""

import sys


def main() -> None:
    """Run the command line; says what to install where its parts are missing."""
    try:
        # A machine that only triggers needs neither click nor what comes with it.
        from runwell.cli.main import main as run  # noqa: PLC0415
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == "runwell":
            raise
        sys.exit(
            f"error: the parts of the command are not installed ({missing} is missing): "
            'pip install "runwell[cli]"'
        )
    run()
