"""A driver for hosts that exist in memory, in virtual time, with faults on request: see `world`."""

from drivers.simulated.breaches import Breach, Violation
from drivers.simulated.directory import SimulatedDirectory
from drivers.simulated.faults import Delay, LoseReply, LoseRequest, Raise, Rule
from drivers.simulated.files import File, Store
from drivers.simulated.machine import Machine, Process
from drivers.simulated.world import Entry, World

__all__ = [
    "Breach",
    "Delay",
    "Entry",
    "File",
    "LoseReply",
    "LoseRequest",
    "Machine",
    "Process",
    "Raise",
    "Rule",
    "SimulatedDirectory",
    "Store",
    "Violation",
    "World",
]
