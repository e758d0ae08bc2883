"""What the worker's tests share: a server that fails on demand, project folders, a worker to watch."""
