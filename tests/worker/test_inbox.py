"""The child's end of its socket: what a signal in the midst of it must not break."""

import subprocess
import sys
import textwrap


def test_a_stop_in_the_midst_of_a_frame_waits_for_its_end() -> None:
    # In a process of its own: only a main thread has signals.
    program = """
        import os, signal, socket, threading
        from runwell.worker.inbox import Inbox
        from runwell.worker.messages import METADATA, STOP, FrameReader, frame

        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        inbox = Inbox(ours)
        body = bytes(2_000_000)
        received = []

        class Stopped(Exception):
            pass

        def stop(*_):
            if inbox.take_stop() is None:
                assert inbox.is_deferred
                handled.set()
                return
            raise Stopped

        def supervise():
            reader = FrameReader()
            received.extend(reader.feed(theirs.recv(4096)))
            theirs.sendall(frame(STOP, b"CANCELED"))
            # The rest of the frame is taken when the signal has come.
            os.kill(os.getpid(), signal.SIGTERM)
            while not received:
                received.extend(reader.feed(theirs.recv(262144)))

        handled = threading.Event()
        signal.signal(signal.SIGTERM, stop)
        supervisor = threading.Thread(target=supervise)
        supervisor.start()
        try:
            inbox.send(frame(METADATA, body))
        except Stopped:
            print("stopped")
        supervisor.join()
        assert handled.is_set()
        assert [found.body == body for found in received] == [True]
        # And the next one is whole too.
        inbox.send(frame(METADATA, b"next"))
        assert FrameReader().feed(theirs.recv(4096))[0].body == b"next"
        print("whole")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.stdout.split(), done.returncode) == (["stopped", "whole"], 0), done.stderr
