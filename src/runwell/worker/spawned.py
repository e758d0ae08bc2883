"""A child that is not forked: a fresh interpreter that imports the project itself.

Everything else is as in a forked one. It refuses to run when the files are no longer those of the
version that it was started for.
"""

import faulthandler
import os
import socket
import sys
from pathlib import Path

from runwell.core.errors import ConfigurationError
from runwell.sdk.project import ImportedTasks, Project, import_tasks, load_project
from runwell.worker.capture import install_streams
from runwell.worker.child import Child
from runwell.worker.messages import HELLO, READY, REFUSE, Frame, FrameReader, Surroundings, frame
from runwell.worker.process import begin_child
from runwell.worker.tracing import prepare


def main() -> None:
    """Import the project, compare, say so, and take runs."""
    parent, connection_fd, *output = (int(argument) for argument in sys.argv[1:6])
    content_hash, folder = sys.argv[6], Path(sys.argv[7])
    for fd in (connection_fd, *output):
        os.set_inheritable(fd, False)
    begin_child(parent)
    connection = socket.socket(fileno=connection_fd)
    capture = install_streams()
    faulthandler.enable(2)
    pipe = capture.open(*output)
    imported = _import(folder)
    if isinstance(imported, str) or imported[1].content_hash != content_hash:
        why = imported if isinstance(imported, str) else "the project's files have changed"
        connection.sendall(frame(REFUSE, why.encode()))
        return
    project, tasks = imported
    hello = _read_hello(connection)
    if hello is None:
        return
    surroundings = Surroundings.model_validate_json(hello.body)
    prepare(tasks.config.telemetry)
    child = Child(connection, capture, pipe, tasks, surroundings, project.config.log_level)
    connection.sendall(frame(READY))
    code = child.serve()
    capture.flush()
    # As in a forked child: threads that the task left behind must not keep the process.
    os._exit(code)


def _import(folder: Path) -> tuple[Project, ImportedTasks] | str:
    try:
        project = load_project(folder)
    except ConfigurationError as error:
        return str(error)
    os.chdir(project.folder)
    return project, import_tasks(project)


def _read_hello(connection: socket.socket) -> Frame | None:
    reader = FrameReader()
    # Byte-exact: what follows is the first run, which is not ours to take.
    while True:
        head = connection.recv(4, socket.MSG_PEEK | socket.MSG_WAITALL)
        if len(head) < 4:
            return None
        length = 4 + int.from_bytes(head)
        for found in reader.feed(connection.recv(length, socket.MSG_WAITALL)):
            if found.kind == HELLO:
                return found


if __name__ == "__main__":
    main()
