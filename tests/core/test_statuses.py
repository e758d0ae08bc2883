"""The table of transitions: sane in every pair, and without a dead end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runwell.core.errors import InvalidTransitionError
from runwell.core.statuses import (
    FINAL_RUN_STATUSES,
    INITIAL,
    LEASED_EXECUTION_STATUSES,
    TRANSITIONS,
    ExecutionStatus,
    RunEvent,
    RunStatus,
    Transition,
    api_status,
    sources,
    status_flags,
    statuses_named,
    transition,
)

State = tuple[ExecutionStatus, RunStatus]
ARROWS = [
    (status, event, moved)
    for status, events in TRANSITIONS.items()
    for event, moved in events.items()
]

# Which run statuses may go with an execution status. PENDING_CANCEL and WAITING_TO_RETRY show what
# the user is to see already; QUEUED keeps what a run was when it goes on after a wait or a backoff.
EXPECTED_RUN_STATUSES: dict[ExecutionStatus, set[RunStatus]] = {
    ExecutionStatus.RUN_CREATED: {RunStatus.WAITING_FOR_DEPLOY},
    ExecutionStatus.DELAYED: {RunStatus.DELAYED},
    ExecutionStatus.QUEUED: {RunStatus.QUEUED, RunStatus.REATTEMPTING, RunStatus.FROZEN},
    ExecutionStatus.WAITING_TO_RETRY: {RunStatus.REATTEMPTING},
    ExecutionStatus.PENDING_EXECUTING: {RunStatus.DEQUEUED},
    ExecutionStatus.EXECUTING: {RunStatus.EXECUTING},
    ExecutionStatus.EXECUTING_WITH_WAITPOINTS: {RunStatus.FROZEN},
    ExecutionStatus.QUEUED_EXECUTING: {RunStatus.FROZEN},
    ExecutionStatus.SUSPENDED: {RunStatus.FROZEN},
    ExecutionStatus.PENDING_CANCEL: {RunStatus.CANCELED},
    ExecutionStatus.FINISHED: set(FINAL_RUN_STATUSES),
}


def follow(state: State, event: RunEvent) -> State:
    """The statuses of a run after an event, as the engine writes them."""
    moved = transition("run_1", state[0], event)
    return moved.execution_status, moved.run_status or state[1]


def reachable_states() -> set[State]:
    """Every pair of statuses that a run can have."""
    found = set(INITIAL.items())
    to_visit = list(found)
    while to_visit:
        state = to_visit.pop()
        for event in TRANSITIONS[state[0]]:
            reached = follow(state, event)
            if reached not in found:
                found.add(reached)
                to_visit.append(reached)
    return found


def test_the_table_has_a_row_for_every_execution_status() -> None:
    assert list(TRANSITIONS) == list(ExecutionStatus)


def test_every_event_happens_somewhere() -> None:
    assert {event for _, event, _ in ARROWS} == set(RunEvent)


def test_every_status_of_either_kind_is_reached() -> None:
    states = reachable_states()
    assert {execution_status for execution_status, _ in states} == set(ExecutionStatus)
    assert {run_status for _, run_status in states} == set(RunStatus)


def test_a_run_shows_only_what_fits_where_it_is() -> None:
    shown: dict[ExecutionStatus, set[RunStatus]] = {status: set() for status in ExecutionStatus}
    for execution_status, run_status in reachable_states():
        shown[execution_status].add(run_status)
    assert shown == EXPECTED_RUN_STATUSES


def test_only_the_end_has_no_way_out() -> None:
    dead_ends = {status for status, events in TRANSITIONS.items() if not events}
    assert dead_ends == {ExecutionStatus.FINISHED}


def test_the_end_can_be_reached_from_everywhere() -> None:
    reaches = {ExecutionStatus.FINISHED}
    while True:
        more = {start for start, _, moved in ARROWS if moved.execution_status in reaches} - reaches
        if not more:
            break
        reaches |= more
    assert reaches == set(ExecutionStatus)


def test_a_run_is_final_for_its_user_when_it_ended_or_its_cancel_is_under_way() -> None:
    for execution_status, run_status in reachable_states():
        is_over = execution_status in (ExecutionStatus.FINISHED, ExecutionStatus.PENDING_CANCEL)
        assert (run_status in FINAL_RUN_STATUSES) == is_over


def test_what_a_user_saw_as_final_never_changes() -> None:
    for state in reachable_states():
        if state[1] in FINAL_RUN_STATUSES:
            for event in TRANSITIONS[state[0]]:
                assert follow(state, event)[1] is state[1]


def test_every_run_that_is_not_over_can_be_canceled() -> None:
    over = {ExecutionStatus.FINISHED, ExecutionStatus.PENDING_CANCEL}
    assert {status for status, _ in sources(RunEvent.CANCEL)} == set(ExecutionStatus) - over


def test_a_cancel_waits_for_a_worker_exactly_where_one_holds_the_run() -> None:
    for status, moved in sources(RunEvent.CANCEL):
        is_held = status in LEASED_EXECUTION_STATUSES
        expected = ExecutionStatus.PENDING_CANCEL if is_held else ExecutionStatus.FINISHED
        assert moved == Transition(expected, RunStatus.CANCELED)


def test_a_worker_gets_a_run_by_dequeue_alone() -> None:
    taken = {
        event
        for start, event, moved in ARROWS
        if start not in LEASED_EXECUTION_STATUSES
        and moved.execution_status in LEASED_EXECUTION_STATUSES
    }
    assert taken == {RunEvent.DEQUEUE}


def test_a_run_that_a_worker_holds_can_be_taken_back_from_it() -> None:
    for status in LEASED_EXECUTION_STATUSES:
        assert TRANSITIONS[status].keys() & {RunEvent.HAND_BACK, RunEvent.CONFIRM_CANCEL}


def test_only_what_waits_in_the_queue_is_dequeued() -> None:
    assert [status for status, _ in sources(RunEvent.DEQUEUE)] == [ExecutionStatus.QUEUED]


def test_a_pair_that_the_table_lacks_is_refused_with_the_run_and_both_names() -> None:
    with pytest.raises(InvalidTransitionError) as raised:
        transition("run_7", ExecutionStatus.FINISHED, RunEvent.START)
    assert str(raised.value) == "run run_7 is FINISHED: START can't happen to it there"
    error = raised.value
    assert (error.run_id, error.status, error.event) == ("run_7", "FINISHED", "START")


@given(st.sampled_from(ExecutionStatus), st.sampled_from(RunEvent))
def test_a_transition_answers_for_exactly_the_pairs_of_the_table(
    status: ExecutionStatus, event: RunEvent
) -> None:
    if event in TRANSITIONS[status]:
        assert transition("run_1", status, event) is TRANSITIONS[status][event]
        assert (status, TRANSITIONS[status][event]) in sources(event)
    else:
        with pytest.raises(InvalidTransitionError):
            transition("run_1", status, event)


@given(st.data())
def test_a_random_walk_stays_sane_and_can_always_end(data: st.DataObject) -> None:
    state = data.draw(st.sampled_from(sorted(INITIAL.items())))
    for _ in range(30):
        events = sorted(TRANSITIONS[state[0]])
        if not events:
            break
        state = follow(state, data.draw(st.sampled_from(events)))
        assert state[1] in EXPECTED_RUN_STATUSES[state[0]]
    if state[0] not in (ExecutionStatus.FINISHED, ExecutionStatus.PENDING_CANCEL):
        state = follow(state, RunEvent.CANCEL)
    if state[0] is ExecutionStatus.PENDING_CANCEL:
        state = follow(state, RunEvent.CONFIRM_CANCEL)
    assert state[0] is ExecutionStatus.FINISHED
    assert state[1] in FINAL_RUN_STATUSES


def test_old_clients_see_only_names_they_know() -> None:
    shown = {api_status(status) for status in RunStatus}
    assert shown == {status.value for status in RunStatus} - {"DEQUEUED"}


def test_new_clients_see_only_names_they_know() -> None:
    shown = {api_status(status, is_4x=True) for status in RunStatus}
    unknown = {"WAITING_FOR_DEPLOY", "FROZEN", "REATTEMPTING", "INTERRUPTED"}
    known = {status.value for status in RunStatus} - unknown
    assert shown == known | {"PENDING_VERSION", "WAITING"}


@pytest.mark.parametrize(
    ("name", "statuses"),
    [
        ("EXECUTING", [RunStatus.DEQUEUED, RunStatus.EXECUTING]),
        ("FAILED", [RunStatus.FAILED]),
        ("WAITING", [RunStatus.FROZEN]),
        ("PENDING_VERSION", [RunStatus.WAITING_FOR_DEPLOY]),
        ("REATTEMPTING", [RunStatus.REATTEMPTING]),
        ("INTERRUPTED", [RunStatus.INTERRUPTED]),
        ("ENDED", []),
    ],
)
def test_a_filter_by_a_name_finds_the_statuses_behind_it(
    name: str, statuses: list[RunStatus]
) -> None:
    assert statuses_named(name) == statuses


@given(st.sampled_from(RunStatus))
def test_a_run_is_found_by_the_name_of_its_own_status(status: RunStatus) -> None:
    assert status in statuses_named(status.value)


@given(st.sampled_from(RunStatus))
def test_the_flags_of_a_status_agree_with_each_other(status: RunStatus) -> None:
    flags = status_flags(status)
    assert flags["isCompleted"] == (status in FINAL_RUN_STATUSES)
    assert flags["isCompleted"] == (flags["isSuccess"] or flags["isFailed"])
    assert [flags["isQueued"], flags["isExecuting"], flags["isCompleted"]].count(True) == 1
    assert flags["isExecuting"] or not flags["isWaiting"]
    assert flags["isFailed"] or not flags["isCancelled"]
