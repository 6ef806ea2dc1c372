"""What a lab may leave on a machine, whoever left it and however it ended: how to find it, how to end it.

Processes are found by the mark that all of a lab's processes inherit and by the namespaces in which marked ones
live; mounts and loop devices by the state folder in their paths. Namespaces and what is in them (bridges, cables)
end with their last process. No record is needed, so an `up` that was killed half-way is cleaned up as well.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from lab.processes import OUTSIDE, end, marked, namespace, parent, pids, run
from lab.state import Process, State

# Kinds of namespaces that labs make. A process in one of them belongs to the lab.
KINDS = ("net", "mnt", "pid")


def find_leftovers(state: State) -> list[str]:
    """One line for each process, mount and loop device of this lab that exists now."""
    found = [f"process {process.pid}: {_command(process.pid)}" for process in processes(state)]
    found += [f"mount on {path}" for path in mounts(state)]
    found += [f"loop device {device}" for device in loop_devices(state)]
    return found


def remove_leftovers(state: State) -> None:
    """End processes, take mounts away, free loop devices; what resists is for `find_leftovers` to tell."""
    end(processes(state), grace=0)
    for path in mounts(state):
        run(["umount", "--lazy", "--recursive", path])
    for device in loop_devices(state):
        run(["losetup", "--detach", device])


def processes(state: State) -> list[Process]:
    """All processes of the lab but ourselves and our ancestors, the marked ones first."""
    ours = _ancestry(os.getpid())
    found = marked(state)
    namespaces = _own_namespaces(state, [process.pid for process in found])
    for pid in pids():
        inhabited = {namespace(pid, kind) for kind in KINDS}
        if inhabited & namespaces and (process := Process.of(pid)):
            found.append(process)
    return [process for process in dict.fromkeys(found) if process.pid not in ours]


def mounts(state: State) -> list[str]:
    """Mount points in and below the state folder as this process sees them, the deepest first."""
    points = parse_mount_points(Path("/proc/self/mountinfo").read_text())
    folder = str(state.folder)
    return sorted((point for point in points if point == folder or point.startswith(f"{folder}/")), reverse=True)


def parse_mount_points(mountinfo: str) -> list[str]:
    """The mount points (fifth field, octal escapes undone) of /proc/PID/mountinfo."""
    return [_unescape(line.split()[4]) for line in mountinfo.splitlines()]


def loop_devices(state: State) -> list[str]:
    """Loop devices whose file lies in the state folder."""
    shown = run(["losetup", "--list", "--json", "--output", "NAME,BACK-FILE"])
    devices = json.loads(shown)["loopdevices"] if shown.strip() else []
    return [device["name"] for device in devices if (device["back-file"] or "").startswith(f"{state.folder}/")]


def _own_namespaces(state: State, members: list[int]) -> set[str | None]:
    """Namespaces in which the lab's processes live, without those that it came from."""
    foreign = [os.getpid(), 1]
    if anchor := state.process(OUTSIDE):
        foreign.append(anchor.pid)
    without = {namespace(pid, kind) for pid in foreign for kind in KINDS}
    return {namespace(pid, kind) for pid in members for kind in KINDS} - without - {None}


def _ancestry(pid: int) -> list[int]:
    """The process itself, its parent, and so on."""
    chain = [pid]
    while (above := parent(chain[-1])) > 0:
        chain.append(above)
    return chain


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except FileNotFoundError:
        return "(ended)"


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
