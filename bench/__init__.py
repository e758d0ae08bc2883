"""Measurements of Runwell, run from the repository's root: `python -m bench` (Linux only)."""
