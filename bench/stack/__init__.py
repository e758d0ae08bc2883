"""What the choice of driver, wire format and HTTP server stands on: `python -m bench.stack`.

Not Runwell itself: its two hot paths in their smallest real form, so that one part can be swapped
at a time. `python -m bench` measures the real thing.
"""
