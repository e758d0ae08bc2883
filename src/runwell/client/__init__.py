"""The HTTP API from the caller's side, sync and async, and what a worker says to the server."""
