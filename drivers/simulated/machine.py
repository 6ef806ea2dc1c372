"""One machine: power, links, file systems, and the QEMU processes that truly run."""

from __future__ import annotations

import random
import uuid as uuids
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from drivers.errors import Refused
from drivers.model import GuestFacts, HostFacts, StopReason
from drivers.simulated import documents, drives, guests, layers, platform
from drivers.simulated.daemon import Daemon
from drivers.simulated.files import File, Store
from drivers.simulated.qemu import Opened, Qemu
from drivers.simulated.sparse import SparseBytes

if TYPE_CHECKING:
    from drivers.simulated.world import World

SILENT_SECONDS = 30.0
"""How long a daemon keeps a client that it hears nothing of, and so how late a message can still arrive."""
_EMPTY_FOLDER = 2**33
"""Capacity of the file system under an unmounted path."""


@dataclass(frozen=True)
class Process:
    """A QEMU process, as /proc shows it."""

    uuid: str
    name: str
    images: tuple[tuple[Store, str], ...]
    """Files that it holds open for writing."""
    media: tuple[tuple[Store, str], ...]
    """Files that it only reads."""
    since: float
    """When it was started."""


class Machine:
    """A machine and all that can happen to it. Every method but `processes` is a fault or a repair."""

    def __init__(self, world: World, name: str, *, cpus: int, memory: int, bridges: tuple[str, ...]) -> None:
        self.world = world
        self.name = name
        self.memory = memory
        self.bridges = bridges
        """Set it to add and remove bridges."""
        self.powered = True
        self.linked = True
        self.mounts: dict[str, Store] = {}
        self.qemus: dict[str, Qemu] = {}
        self.boot_id = ""
        self._facts = platform.facts(name, cpus, memory, self._uuid())
        self._held_up: list[tuple[float, Callable[[], None]]] = []
        self._new_boot()
        self.daemon = Daemon(self)

    # What is true ----------------------------------------------------------------------------------------------------

    @property
    def facts(self) -> HostFacts:
        """What the machine says of itself."""
        return platform.with_bridges(self._facts, self.bridges)

    def processes(self) -> tuple[Process, ...]:
        """What runs here now."""
        return tuple(
            Process(qemu.uuid, qemu.name, _files(qemu.writes.values()), _files(qemu.reads.values()), qemu.since)
            for qemu in self.qemus.values()
        )

    def find(self, path: str) -> tuple[Store, str, File | None]:
        """What lies at a path: its store, its name there, and the file if there is one.

        Raises Refused(VolumeMissing) when there is no such folder.
        """
        folder, _, name = path.rpartition("/")
        store = self.mounts.get(folder)
        if store is None:
            raise Refused(f"cannot access storage file {path!r}: no such file or directory", reason="VolumeMissing")
        return store, name, store.files.get(name)

    # File systems ----------------------------------------------------------------------------------------------------

    def mount(self, path: str, store: Store) -> None:
        """Mount a store at a path."""
        self.mounts[path] = store
        self._note(f"{store.name} mounted at {path}")

    def unmount(self, path: str) -> None:
        """Leave an empty folder of the machine's own at the path. Processes keep the files that they have open."""
        self.mounts[path] = Store(f"{self.name}:{path}", _EMPTY_FOLDER, lambda what: self._note(f"{path}: {what}"))
        self._note(f"{path} unmounted")

    # Power -----------------------------------------------------------------------------------------------------------

    def power_off(self) -> None:
        """Cut the power, silently: no connection is closed, nothing is said to anybody."""
        if not self.powered:
            return
        self.powered = False
        self._held_up.clear()
        for qemu in self.qemus.values():
            qemu.end()
            qemu.parked.clear()
        self.qemus.clear()
        self.daemon.vanish()
        self._note("power off")

    def power_on(self) -> None:
        """Boot: a new boot id, a daemon that knows the definitions of before, nothing running."""
        if self.powered:
            return
        self.powered = True
        self._new_boot()
        self._note("power on")
        self.daemon.boot()

    # Links -----------------------------------------------------------------------------------------------------------

    def partition(self) -> None:
        """Cut all links, silently. What has arrived takes effect; what has not is sent again until it arrives."""
        if self.linked:
            self.linked = False
            self._note("links cut")

    def heal(self) -> None:
        """Mend the links. What was sent during the last SILENT_SECONDS arrives now; what is older never does."""
        if self.linked:
            return
        self.linked = True
        self._note("links mended")
        held_up, self._held_up = self._held_up, []
        since = self.world.now - SILENT_SECONDS
        for sent, arrive in held_up:
            if sent >= since:
                self.world.later(self.world.latency("event"), arrive)

    def transmit(self, seconds: float, arrive: Callable[[], None]) -> None:
        """Have something arrive, here or from here, after seconds on the way."""
        self.world.later(seconds, self._arrive, arrive)

    def _arrive(self, arrive: Callable[[], None]) -> None:
        if self.linked:
            arrive()
        else:
            self._held_up.append((self.world.now, arrive))

    # The daemon ------------------------------------------------------------------------------------------------------

    def hang(self) -> None:
        """Stop the daemon (SIGSTOP). Guests run on; what arrives waits."""
        self.daemon.hang()

    def resume(self) -> None:
        """Let the daemon go on, with all that waits."""
        self.daemon.resume()

    def daemon_kill(self) -> None:
        """Kill the daemon. Guests run on; its clients' connections break."""
        self.daemon.kill()

    def daemon_start(self) -> None:
        """Start the daemon; it finds the guests that run."""
        if self.powered:
            self.daemon.start()

    # Guests ----------------------------------------------------------------------------------------------------------

    def kill_qemu(self, uuid: str) -> None:
        """Kill a QEMU process (SIGKILL)."""
        self.end_qemu(self._running(uuid), StopReason.CRASHED)

    def freeze_qemu(self, uuid: str) -> None:
        """Stop a QEMU process (SIGSTOP)."""
        self._running(uuid).frozen = True
        self._note(f"QEMU of {uuid} frozen")

    def thaw_qemu(self, uuid: str) -> None:
        """Let a QEMU process go on; one that is gone or runs is left as it is."""
        qemu = self.qemus.get(uuid)
        if qemu is None or not qemu.frozen:
            return
        qemu.frozen = False
        self._note(f"QEMU of {uuid} thawed")
        self.daemon.go_on(qemu)
        self.settle_guest(qemu)

    def guest_shutdown(self, uuid: str) -> None:
        """Have a guest power itself off."""
        qemu = self._running(uuid)
        qemu.powering_off = True
        self.settle_guest(qemu)

    def guest_agent(self, uuid: str, facts: GuestFacts | None) -> None:
        """Have a guest's agent connect, and answer this from now on; None: it disconnects."""
        qemu = self._running(uuid)
        qemu.agent = facts
        self.daemon.noticed(lambda: self.daemon.agent_changed(qemu))

    def lock_tray(self, uuid: str, alias: str, *, locked: bool = True) -> None:
        """Have a guest use the medium in a drive, or use it no more."""
        qemu = self._running(uuid)
        qemu.locked_trays = qemu.locked_trays | {alias} if locked else qemu.locked_trays - {alias}

    def io_error(self, uuid: str) -> None:
        """Have a guest meet an I/O error, which pauses it."""
        qemu = self._running(uuid)
        qemu.paused = "ioerror"
        self.daemon.noticed(lambda: self.daemon.changed(uuid))

    def settle_guest(self, qemu: Qemu) -> None:
        """End a guest that is about to power off, if it can run."""
        if qemu.powering_off and not qemu.gone and not qemu.frozen and not qemu.paused:
            self.end_qemu(qemu, StopReason.GUEST_SHUTDOWN)

    def boot_guest(self, qemu: Qemu) -> None:
        """Have the guest's firmware run what it finds on its disks."""
        qemu.boots += 1
        disk = next((found for found in self._disks(qemu) if guests.boots(found)), None)
        qemu.system = self.world.obedient or disk is not None
        if disk is not None and guests.powers_off(disk):
            self.world.later(guests.BOOT_SECONDS, self._power_button, qemu)
        if disk is not None and guests.counts(disk):
            qemu.sequence = 0
            self.world.later(guests.BOOT_SECONDS, self._count, qemu, qemu.boots)

    def _disks(self, qemu: Qemu) -> Iterator[SparseBytes]:
        """The first sector of each image that firmware may boot from, in order."""
        for path, form, _ in documents.booted_from(qemu.live.root):
            yield layers.shown(drives.chain(qemu, path, form), guests.SECTOR)

    def _count(self, qemu: Qemu, boot: int) -> None:
        """Have a guest that counts write its next number on its first two disks."""
        if qemu.gone or qemu.boots != boot:
            return
        self.world.later(guests.TICK_SECONDS, self._count, qemu, boot)
        if qemu.frozen or qemu.paused:
            return
        qemu.sequence += 1
        found = [image for image in documents.booted_from(qemu.live.root) if image[2]]
        for path, form, _ in found[:2]:
            store = qemu.writes[path].store
            layers.write(store, drives.chain(qemu, path, form), *guests.count(qemu.sequence))

    def press_power_button(self, qemu: Qemu) -> None:
        """Ask the guest's system to power off, if it has one."""
        if qemu.system:
            self.world.later(guests.OBEY_SECONDS * self.world.random.uniform(0.5, 1.5), self._power_button, qemu)

    def _power_button(self, qemu: Qemu) -> None:
        qemu.powering_off = True
        self.settle_guest(qemu)

    def end_qemu(self, qemu: Qemu, cause: StopReason) -> None:
        """Have a process end, and its daemon notice."""
        if qemu.gone:
            return
        qemu.end()
        del self.qemus[qemu.uuid]
        self._note(f"QEMU of {qemu.name} ({qemu.uuid}) ended: {cause}")
        self.daemon.noticed(lambda: self.daemon.qemu_ended(qemu, cause))

    def _running(self, uuid: str) -> Qemu:
        qemu = self.qemus.get(uuid)
        if qemu is None:
            raise KeyError(f"no process of {uuid} runs on {self.name}")
        return qemu

    # -----------------------------------------------------------------------------------------------------------------

    def _new_boot(self) -> None:
        self.boot_id = self._uuid()

    def _uuid(self) -> str:
        return new_uuid(self.world.random)

    def _note(self, what: str) -> None:
        self.world.note(self.name, what)


def _files(opened: Iterable[Opened]) -> tuple[tuple[Store, str], ...]:
    return tuple((each.store, each.name) for each in opened)


def new_uuid(rng: random.Random) -> str:
    """A random UUID that a seed can repeat."""
    return str(uuids.UUID(int=rng.getrandbits(128), version=4))
