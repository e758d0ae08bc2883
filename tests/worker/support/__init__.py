"""What the worker's tests share: a server that fails on demand, projects, a worker to watch."""
