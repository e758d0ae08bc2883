"""The list of tasks and queues that a project's code defines, filled by its own decorators."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from runwell.client.options import Queue

#: A task's function, whatever it takes.
TaskFunction = Callable[..., object]


class Definition(Protocol):
    """A task, as far as the list needs to know it."""

    @property
    def id(self) -> str:
        """The task's id."""
        ...

    @property
    def function(self) -> TaskFunction:
        """The user's function."""
        ...


_DefinitionT = TypeVar("_DefinitionT", bound=Definition)


@dataclass(frozen=True, slots=True)
class Catalog:
    """Definitions in the order in which the code made them; an id may be there more than once."""

    tasks: list[Definition] = field(default_factory=list[Definition])
    queues: list[Queue] = field(default_factory=list[Queue])

    def add_task(self, task: _DefinitionT) -> _DefinitionT:
        """Note a task."""
        self.tasks.append(task)
        return task

    def add_queue(self, queue: Queue) -> Queue:
        """Note a queue."""
        self.queues.append(queue)
        return queue


#: What has been defined in this process.
catalog = Catalog()
