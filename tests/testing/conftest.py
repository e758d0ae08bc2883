"""The plugin as pytest would load it, on the PostgreSQL of its own that it starts once."""

from runwell.testing.plugin import runwell_host as runwell_host
from runwell.testing.plugin import runwell_test as runwell_test
