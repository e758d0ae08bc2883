"""The project of the web applications: the tasks in `trigger/`."""

from runwell import define_config

config = define_config(dirs=["trigger"])
