"""The project of the demo: the tasks in `trigger/`."""

from runwell import Retries, Retry, define_config

config = define_config(
    dirs=["trigger"],
    retries=Retries(default=Retry(max_attempts=3, min_timeout=0.2, max_timeout="2s")),
)
