"""Ports of the control namespaces, reachable at the same port of 127.0.0.1 outside.

The forwarder listens in the machine's namespace, then moves into the control namespace, from where it connects.
Run by the lab: `python -m lab.forward CONTROL_PID PORT`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import sys

from lab.control import Control
from lab.processes import end, outside, python, run, spawn, wait_until
from lab.state import State

LOOPBACK = "127.0.0.1"
CHUNK_BYTES = 1 << 16


def forward(state: State, port: int) -> None:
    """Make 127.0.0.1:`port` of the control namespaces reachable outside them, in the background.

    Harmless when it is already. Raises DeadlineError when the port is taken (the message carries the log).
    """
    control, name = Control(state), _name(port)
    if running := state.process(name):
        if control.lives_here(running):
            return
        end([running], grace=0)
    process = spawn(state, name, python("lab.forward", str(control.process.pid), str(port)))
    # It moves to the control namespaces only once it listens.
    wait_until(f"port {port} outside", lambda: control.lives_here(process), 10, process=process, log=state.log(name))


def stop(state: State, port: int) -> None:
    """End the forwarding of this port, if there is one."""
    if process := state.process(_name(port)):
        end([process], grace=0)
    state.forget(_name(port))


def free_port(state: State) -> int:
    """A port of the machine's loopback address that nobody uses now."""
    probe = "import socket; print(socket.create_server(('127.0.0.1', 0)).getsockname()[1])"
    return int(run([sys.executable, "-c", probe], inside=outside(state)))


def _name(port: int) -> str:
    return f"forward-{port}"


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


async def _serve(listener: socket.socket, port: int) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(LOOPBACK, port)
        except OSError:
            # Nobody listens there now: the caller must see its connection refused or closed, as it would inside.
            writer.transport.abort()
            return
        try:
            await asyncio.gather(_carry(reader, far_writer), _carry(far_reader, writer))
        finally:
            writer.close()
            far_writer.close()

    server = await asyncio.start_server(connected, sock=listener)
    await server.serve_forever()


def _enter_network(pid: int) -> None:
    """Move this thread into the network namespace of a process (os.setns exists from Python 3.12 only)."""
    library = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        if library.setns(descriptor, 0) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)


def main(control_pid: int, port: int) -> None:
    """Listen, move, serve until killed."""
    listener = socket.create_server((LOOPBACK, port), backlog=128)
    _enter_network(control_pid)
    asyncio.run(_serve(listener, port))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
