"""`with_raw_response` of each name that manages: the same methods, whose results have the answer.

Two classes for each: what has the methods, and the name itself with `with_raw_response`. Those of
`runs` are in `raw_runs`.
"""

from functools import cached_property

from runwell.client.api import ApiClient
from runwell.client.bulk_actions import BlockingBulkActions, BulkActions
from runwell.client.management import BlockingTasks, Tasks
from runwell.client.public_tokens import Auth, BlockingAuth
from runwell.client.queues import BlockingQueues, Queues
from runwell.client.recording import blocking_raw, raw
from runwell.client.schedules import BlockingSchedules, Schedules
from runwell.client.variables import BlockingEnvVars, EnvVars


class RawTasks:
    """Methods for tasks whose results come with the server's answer."""

    def __init__(self, client: ApiClient) -> None:
        made = Tasks
        self.trigger = raw(made, client, made.trigger)
        self.batch_trigger = raw(made, client, made.batch_trigger)
        self.trigger_and_poll = raw(made, client, made.trigger_and_poll)


class TasksWithRaw(Tasks):  # noqa: D101 (the docstring of its base)
    @cached_property
    def with_raw_response(self) -> RawTasks:
        """The same methods, whose results have the status and the headers of the answer."""
        return RawTasks(self._client)


class RawQueues:
    """Methods for queues whose results come with the server's answer."""

    def __init__(self, client: ApiClient) -> None:
        made = Queues
        self.list = raw(made, client, made.list)
        self.retrieve = raw(made, client, made.retrieve)
        self.pause = raw(made, client, made.pause)
        self.resume = raw(made, client, made.resume)
        self.override_concurrency_limit = raw(made, client, made.override_concurrency_limit)
        self.reset_concurrency_limit = raw(made, client, made.reset_concurrency_limit)


class QueuesWithRaw(Queues):  # noqa: D101 (the docstring of its base)
    @cached_property
    def with_raw_response(self) -> RawQueues:
        """The same methods, whose results have the status and the headers of the answer."""
        return RawQueues(self._client)


class RawBulkActions:
    """Methods for bulk actions whose results come with the server's answer."""

    def __init__(self, client: ApiClient) -> None:
        made = BulkActions
        self.list = raw(made, client, made.list)
        self.retrieve = raw(made, client, made.retrieve)
        self.abort = raw(made, client, made.abort)
        self.poll = raw(made, client, made.poll)


class BulkActionsWithRaw(BulkActions):  # noqa: D101 (the docstring of its base)
    @cached_property
    def with_raw_response(self) -> RawBulkActions:
        """The same methods, whose results have the status and the headers of the answer."""
        return RawBulkActions(self._client)


class RawEnvVars:
    """Methods for environment variables whose results come with the server's answer."""

    def __init__(self, client: ApiClient) -> None:
        made = EnvVars
        self.list = raw(made, client, made.list)
        self.upload = raw(made, client, made.upload)
        self.create = raw(made, client, made.create)
        self.retrieve = raw(made, client, made.retrieve)
        self.update = raw(made, client, made.update)
        self.delete = raw(made, client, made.delete)


class EnvVarsWithRaw(EnvVars):  # noqa: D101 (the docstring of its base)
    @cached_property
    def with_raw_response(self) -> RawEnvVars:
        """The same methods, whose results have the status and the headers of the answer."""
        return RawEnvVars(self._client)


class RawAuth:
    """Methods for public access tokens whose results come with the server's answer."""

    def __init__(self, client: ApiClient) -> None:
        made = Auth
        self.create_public_token = raw(made, client, made.create_public_token)
        self.create_trigger_public_token = raw(made, client, made.create_trigger_public_token)
        self.create_batch_trigger_public_token = raw(
            made, client, made.create_batch_trigger_public_token
        )


class AuthWithRaw(Auth):  # noqa: D101 (the docstring of its base)
    @cached_property
    def with_raw_response(self) -> RawAuth:
        """The same methods, whose results have the status and the headers of the answer."""
        return RawAuth(self._client)


class RawSchedules:
    """Methods for schedules whose results come with the server's answer."""

    def __init__(self, client: ApiClient) -> None:
        made = Schedules
        self.create = raw(made, client, made.create)
        self.list = raw(made, client, made.list)
        self.retrieve = raw(made, client, made.retrieve)
        self.update = raw(made, client, made.update)
        self.delete = raw(made, client, made.delete)
        self.activate = raw(made, client, made.activate)
        self.deactivate = raw(made, client, made.deactivate)
        self.timezones = raw(made, client, made.timezones)


class RawBlockingTasks:
    """Methods for tasks whose results come with the server's answer, blocking."""

    def __init__(self, client: ApiClient) -> None:
        made = BlockingTasks
        self.trigger = blocking_raw(made, client, made.trigger)
        self.batch_trigger = blocking_raw(made, client, made.batch_trigger)
        self.trigger_and_poll = blocking_raw(made, client, made.trigger_and_poll)


class BlockingTasksWithRaw(BlockingTasks):  # noqa: D101 (the docstring of its base)
    @cached_property
    def with_raw_response(self) -> RawBlockingTasks:
        """The same methods, whose results have the status and the headers of the answer."""
        return RawBlockingTasks(self._client)


class RawBlockingQueues:
    """Methods for queues whose results come with the server's answer, blocking."""

    def __init__(self, client: ApiClient) -> None:
        made = BlockingQueues
        self.list = blocking_raw(made, client, made.list)
        self.retrieve = blocking_raw(made, client, made.retrieve)
        self.pause = blocking_raw(made, client, made.pause)
        self.resume = blocking_raw(made, client, made.resume)
        self.override_concurrency_limit = blocking_raw(
            made, client, made.override_concurrency_limit
        )
        self.reset_concurrency_limit = blocking_raw(made, client, made.reset_concurrency_limit)


class BlockingQueuesWithRaw(BlockingQueues):  # noqa: D101 (the docstring of its base)
    @cached_property
    def with_raw_response(self) -> RawBlockingQueues:
        """The same methods, whose results have the status and the headers of the answer."""
        return RawBlockingQueues(self._client)


class RawBlockingBulkActions:
    """Methods for bulk actions whose results come with the server's answer, blocking."""

    def __init__(self, client: ApiClient) -> None:
        made = BlockingBulkActions
        self.list = blocking_raw(made, client, made.list)
        self.retrieve = blocking_raw(made, client, made.retrieve)
        self.abort = blocking_raw(made, client, made.abort)
        self.poll = blocking_raw(made, client, made.poll)


class BlockingBulkActionsWithRaw(BlockingBulkActions):  # noqa: D101 (the docstring of its base)
    @cached_property
    def with_raw_response(self) -> RawBlockingBulkActions:
        """The same methods, whose results have the status and the headers of the answer."""
        return RawBlockingBulkActions(self._client)


class RawBlockingEnvVars:
    """Methods for environment variables whose results come with the server's answer, blocking."""

    def __init__(self, client: ApiClient) -> None:
        made = BlockingEnvVars
        self.list = blocking_raw(made, client, made.list)
        self.upload = blocking_raw(made, client, made.upload)
        self.create = blocking_raw(made, client, made.create)
        self.retrieve = blocking_raw(made, client, made.retrieve)
        self.update = blocking_raw(made, client, made.update)
        self.delete = blocking_raw(made, client, made.delete)


class BlockingEnvVarsWithRaw(BlockingEnvVars):  # noqa: D101 (the docstring of its base)
    @cached_property
    def with_raw_response(self) -> RawBlockingEnvVars:
        """The same methods, whose results have the status and the headers of the answer."""
        return RawBlockingEnvVars(self._client)


class RawBlockingAuth:
    """Methods for public access tokens whose results come with the server's answer, blocking."""

    def __init__(self, client: ApiClient) -> None:
        made = BlockingAuth
        self.create_public_token = blocking_raw(made, client, made.create_public_token)
        self.create_trigger_public_token = blocking_raw(
            made, client, made.create_trigger_public_token
        )
        self.create_batch_trigger_public_token = blocking_raw(
            made, client, made.create_batch_trigger_public_token
        )


class BlockingAuthWithRaw(BlockingAuth):  # noqa: D101 (the docstring of its base)
    @cached_property
    def with_raw_response(self) -> RawBlockingAuth:
        """The same methods, whose results have the status and the headers of the answer."""
        return RawBlockingAuth(self._client)


class RawBlockingSchedules:
    """Methods for schedules whose results come with the server's answer, blocking."""

    def __init__(self, client: ApiClient) -> None:
        made = BlockingSchedules
        self.create = blocking_raw(made, client, made.create)
        self.list = blocking_raw(made, client, made.list)
        self.retrieve = blocking_raw(made, client, made.retrieve)
        self.update = blocking_raw(made, client, made.update)
        self.delete = blocking_raw(made, client, made.delete)
        self.activate = blocking_raw(made, client, made.activate)
        self.deactivate = blocking_raw(made, client, made.deactivate)
        self.timezones = blocking_raw(made, client, made.timezones)
