"""The measurement behind the choice of driver, wire format and HTTP server: `python -m bench.stack`.

Not Runwell itself: its two hot paths in their smallest real form, so that one part can be swapped
at a time. `python -m bench` measures the real thing.
"""
