"""The worker: takes runs from the server and gives each a process of its own.

A map, from the machine down to the user's code:

- `supervisor`: one per machine, an asyncio program; `intake`, `heartbeat` and `reports` are its
  three conversations with the server, `outbox` keeps what the server has not acknowledged.
- `version`: one version of a project's tasks here; `zygote_handle` speaks with its warm parent and
  `child_handle` with a process made by it; `controller` is the life of one run.
- `zygote`: the warm parent, which has the task files imported and makes a process per run.
- `child`: what happens in that process; `driver` runs coroutines, `capture` takes what is written.
"""
