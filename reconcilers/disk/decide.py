"""What to do about a disk: every rule, as a pure function of what is declared and what is observed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from crds.disk import Disk, DiskContent, DiskPhase
from crds.quantity import from_bytes, to_bytes
from drivers.model import Volume
from reconcilers.disk.record import Record
from reconcilers.standing import Verdict, progressing, ready, stalled
from xmlgen.names import record_name

CREATE_BOUND = 120.0
IMPORT_BOUND = 3600.0


class Step(Enum):
    """What to do next."""

    NOTHING = "Nothing"
    CREATE = "Create"
    """Make the blank volume."""
    IMPORT = "Import"
    """Fill the volume from its image, in the background."""
    TAKE_OVER = "TakeOver"
    """Use the volume that lies there."""
    FINISH = "Finish"
    """The volume is whole: write down that it is."""
    GROW = "Grow"
    """Make it larger."""


@dataclass(frozen=True)
class Observed:
    """What `decide` goes by. The storage was looked at on a host that reaches it."""

    volume: Volume | None
    """The file of the name that is written down (or that `source.existing` names)."""
    record: Record | None
    """The record beside it."""
    mine: Record
    """The record that this disk's volume should have."""
    trashed: bool
    """Whether the volume waits in the trash."""
    rival: str | None = None
    """The Disk (namespace/name) that has a better right to the volume."""


@dataclass(frozen=True)
class Plan:
    """One step, and how the disk stands meanwhile."""

    step: Step
    verdict: Verdict
    phase: DiskPhase


def decide(disk: Disk, seen: Observed) -> Plan:
    """The next step for a disk whose volume has a name, on storage that can be reached."""
    volume = disk.status.volume
    assert volume is not None, "which volume it will be is written down first"
    if volume.provisioned_at is not None:
        return _provisioned(disk, seen)
    return _unfinished(disk, seen)


def _provisioned(disk: Disk, seen: Observed) -> Plan:
    """Once whole, a volume is never made again: one that is not there is missing."""
    known = disk.status.volume
    assert known is not None, "what was provisioned has a volume"
    if seen.volume is None:
        return _missing(disk.status.path or seen.mine.volume)
    wanted = to_bytes(disk.spec.size)
    # A CD-ROM is as large as what it holds. What was begun is brought to its end: a VM waits for that.
    if (seen.volume.capacity < wanted and known.content is not DiskContent.CDROM) or known.grows_on is not None:
        message = f"grows from {from_bytes(seen.volume.capacity)} to {disk.spec.size}"
        return Plan(Step.GROW, progressing("Resizing", message, CREATE_BOUND), DiskPhase.RESIZING)
    return Plan(Step.NOTHING, ready("Ready"), DiskPhase.READY)


def _missing(volume: str) -> Plan:
    message = (
        f"the volume {volume} is not there. It is never replaced by a blank one: "
        "look whether the storage is mounted, or restore the file; or delete this Disk"
    )
    return Plan(Step.NOTHING, stalled("VolumeMissing", message), DiskPhase.FAILED)


def _unfinished(disk: Disk, seen: Observed) -> Plan:
    creating = progressing("Creating", "the volume is being made", CREATE_BOUND)
    if disk.spec.source is not None and disk.spec.source.existing is not None:
        return _existing(disk, seen)
    if seen.volume is not None and seen.record is not None and seen.record.same_disk(seen.mine):
        # Whole, from before a crash or from before this object was made again.
        step = Step.FINISH if seen.record == seen.mine else Step.TAKE_OVER
        return Plan(step, creating, DiskPhase.CREATING)
    if seen.record is not None and not seen.record.same_disk(seen.mine):
        owner = f"{seen.record.namespace}/{seen.record.name}"
        return Plan(Step.NOTHING, _taken(owner, seen.mine.volume), DiskPhase.FAILED)
    if disk.status.volume is not None and disk.status.volume.taken_over:
        # It was whole when it was chosen. Its record alone can be gone: a crash came while it was written anew.
        return _missing(seen.mine.volume) if seen.volume is None else Plan(Step.TAKE_OVER, creating, DiskPhase.CREATING)
    if disk.spec.source is not None and disk.spec.source.blank is None:
        return Plan(
            Step.IMPORT, progressing("Importing", "the image is being copied", IMPORT_BOUND), DiskPhase.IMPORTING
        )
    return Plan(Step.CREATE, creating, DiskPhase.CREATING)


def _existing(disk: Disk, seen: Observed) -> Plan:
    if seen.volume is None:
        message = f"there is no file {seen.mine.volume} in the storage domain's directory"
        return Plan(Step.NOTHING, stalled("VolumeNotFound", message), DiskPhase.FAILED)
    if seen.volume.format != disk.spec.format.value:
        message = f"the file is {seen.volume.format}, not {disk.spec.format.value}: make the Disk anew with that format"
        return Plan(Step.NOTHING, stalled("FormatMismatch", message), DiskPhase.FAILED)
    if seen.volume.capacity > to_bytes(disk.spec.size):
        message = f"the volume is {from_bytes(seen.volume.capacity)} large: declare a size of at least that much"
        return Plan(Step.NOTHING, stalled("ImageTooLarge", message), DiskPhase.FAILED)
    if seen.rival is not None:
        return Plan(Step.NOTHING, _taken(seen.rival, seen.mine.volume), DiskPhase.FAILED)
    if seen.record is not None and not _is_of_namespace(seen.record, seen.mine):
        return Plan(Step.NOTHING, _foreign(seen.record, seen.mine.volume), DiskPhase.FAILED)
    step = Step.FINISH if seen.record == seen.mine and not seen.trashed else Step.TAKE_OVER
    return Plan(step, progressing("Creating", "the volume is taken over", CREATE_BOUND), DiskPhase.CREATING)


def _is_of_namespace(found: Record, mine: Record) -> bool:
    """A volume that no Disk has any more (thrown away, or kept as Retain says) is its namespace's to take again."""
    return (found.installation, found.namespace) == (mine.installation, mine.namespace)


def _taken(owner: str, volume: str) -> Verdict:
    return stalled(
        "OwnedByOther",
        f"the volume {volume} belongs to Disk {owner}: delete that Disk first "
        "(its volume then waits in the trash, or stays if its deletionPolicy is Retain)",
    )


def _foreign(found: Record, volume: str) -> Verdict:
    return stalled(
        "OwnedByOther",
        f"the volume {volume} is of Disk {found.namespace}/{found.name}, which is not of this namespace or not of this "
        f"installation: whoever administers the storage gives it away by removing the file {record_name(volume)}",
    )
