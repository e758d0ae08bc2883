"""The project that acceptance tests run."""

from runwell import Retries, Retry, define_config

config = define_config(
    retries=Retries(default=Retry(max_attempts=3, min_timeout=0.01, factor=1, randomize=False))
)
