"""The project that the measurements run."""

from runwell import define_config

config = define_config()
