"""Names of what lies on hosts: domains, volumes, the files beside volumes, pools.

All of them become file names on the host, so all of them must fit 255 bytes with every suffix that libvirt or this
project puts behind them; and no two objects may ever get the same one. Names of Kubernetes objects hold neither `_` nor
upper case, and namespaces hold no `.`: so `<namespace>.<name>` can be taken apart again, and a name that had to be cut
(marked by `_` and a hash) is never the uncut name of another object.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

FILE_NAME_MAX = 255
MARKER = "hostler-domain.json"
"""The file in a storage domain's directory that says which storage domain it is."""

_LONGEST_LIBVIRT_SUFFIX = len("-swtpm.log")
"""libvirt keeps NAME.xml (written as NAME.xml.new), NAME.pid, NAME.log.0, NAME_VARS.fd, NAME-swtpm.log; the names of
its sockets and directories are made of the first twenty characters only."""
_LONGEST_SIDECAR_SUFFIX = len(".json.trash-") + 20
_CUT_HASH_DIGITS = 32
_UID_HASH_DIGITS = 8
_NEVER_CUT = 100
"""So much of `<namespace>.<name>` is in every file's name, also where it had to be cut."""

_OWNER = r"(?P<namespace>[a-z0-9][-a-z0-9]*)\.(?P<name>[a-z0-9][-a-z0-9.]*(_[0-9a-f]{32})?)-[0-9a-f]{8}"
_TRASH = re.compile(r"(?P<volume>.+)\.trash-(?P<since>[0-9]{1,15})")
_VOLUME = re.compile(rf"{_OWNER}\.(?P<format>qcow2|raw)")
_SEED = re.compile(r"(?P<vm>.+)-[0-9a-f]{8}(?P<suffix>\.[0-9a-f]{8,64}\.seed\.iso)")
_SIDECAR = re.compile(
    rf".+\.(qcow2|raw|img|iso)(\.json|\.import(\.json|\.unpacked)?)|.+\.trash-[0-9]+(\.json)?|.+\.json\.trash-[0-9]+"
    rf"|{_OWNER}\.([0-9a-f]{{8,64}}\.seed\.iso|nvram\.fd)|{re.escape(MARKER)}"
)


@dataclass(frozen=True)
class VolumeName:
    """What a volume's name says."""

    namespace: str
    name: str
    """Name of the Disk; where it had to be cut, what is left of it, `_` and a hash."""
    format: str


def domain_name(namespace: str, name: str) -> str:
    """Name of a VM's domain: `<namespace>.<name>`, cut with a hash where libvirt could not store it."""
    return _fit(namespace, name, FILE_NAME_MAX - _LONGEST_LIBVIRT_SUFFIX)


def volume_name(namespace: str, name: str, uid: str, format: str) -> str:  # noqa: A002
    """File name of a Disk's volume: `<namespace>.<name>-<8 hex digits of its uid's hash>.<format>`."""
    return f"{_owner(namespace, name, uid, len(format) + 1)}.{format}"


def parse_volume_name(file_name: str) -> VolumeName | None:
    """The inverse of `volume_name`; None for a file that was not named by it."""
    match = _VOLUME.fullmatch(file_name)
    if match is None:
        return None
    return VolumeName(match["namespace"], match["name"], match["format"])


def beginning(namespace: str, name: str) -> str:
    """How the names of all files of an object (a Disk's or a VM's) begin; those of a few others may too."""
    return f"{namespace}.{name}"[:_NEVER_CUT]


def record_name(volume: str) -> str:
    """Name of the file that says whose the volume is."""
    return f"{volume}.json"


def trash_name(volume: str, unix_seconds: int) -> str:
    """Name of a deleted volume that waits in the trash since then."""
    return f"{volume}.trash-{unix_seconds}"


def parse_trash_name(file_name: str) -> tuple[str, int] | None:
    """The inverse of `trash_name`: the volume and since when; None for any other file."""
    match = _TRASH.fullmatch(file_name)
    return None if match is None else (match["volume"], int(match["since"]))


def import_name(volume: str) -> str:
    """Name of the file that an image is downloaded to, before it becomes the volume."""
    return f"{volume}.import"


def import_note_name(volume: str) -> str:
    """Name of the file that says how far that download came."""
    return f"{import_name(volume)}.json"


def unpacked_name(volume: str) -> str:
    """Name of the file that a compressed image is unpacked to, before it becomes the volume."""
    return f"{import_name(volume)}.unpacked"


def import_names(volume: str) -> tuple[str, ...]:
    """All files that an import may have beside the volume."""
    return (import_note_name(volume), unpacked_name(volume), import_name(volume))


def seed_name(namespace: str, vm: str, uid: str, digest: str) -> str:
    """File name of a VM's cloud-init seed; another content (digest, in hex digits) is another file."""
    suffix = f".{digest}.seed.iso"
    return _owner(namespace, vm, uid, len(suffix)) + suffix


def nvram_name(namespace: str, vm: str, uid: str) -> str:
    """File name of a VM's UEFI variables."""
    return _owner(namespace, vm, uid, len(".nvram.fd")) + ".nvram.fd"


def is_seed_of(file_name: str, namespace: str, vm: str) -> bool:
    """Whether the file is a seed of the VM of that name, whichever uid it had."""
    match = _SEED.fullmatch(file_name)
    return match is not None and match["vm"] == _fitted(namespace, vm, len(match["suffix"]))


def pool_name(storage_domain: str, uid: str) -> str:
    """Name of the libvirt storage pool over a StorageDomain's directory."""
    room = FILE_NAME_MAX - _LONGEST_LIBVIRT_SUFFIX - _UID_HASH_DIGITS - 1
    return f"{_fit('hostler', storage_domain, room)}-{_uid_hash(uid)}"


def is_ours(file_name: str) -> bool:
    """Whether a file in a storage domain's directory is one of those that lie beside volumes.

    These are records, what is in the trash, seeds, UEFI variables, downloads and the marker; volumes are not.
    """
    return _SIDECAR.fullmatch(file_name) is not None


def _owner(namespace: str, name: str, uid: str, suffix: int) -> str:
    """`<namespace>.<name>-<hash of uid>`, with room for a suffix of that length and a sidecar's behind it."""
    return f"{_fitted(namespace, name, suffix)}-{_uid_hash(uid)}"


def _fitted(namespace: str, name: str, suffix: int) -> str:
    # The longest format name counts for every volume: how a name is cut does not hang on the format.
    room = FILE_NAME_MAX - _LONGEST_SIDECAR_SUFFIX - _UID_HASH_DIGITS - 1 - max(suffix, len(".qcow2"))
    return _fit(namespace, name, room)


def _fit(namespace: str, name: str, room: int) -> str:
    whole = f"{namespace}.{name}"
    if len(whole) <= room:
        return whole
    digest = hashlib.sha256(f"{namespace}/{name}".encode()).hexdigest()[:_CUT_HASH_DIGITS]
    return f"{whole[: room - _CUT_HASH_DIGITS - 1]}_{digest}"


def _uid_hash(uid: str) -> str:
    return hashlib.sha256(uid.encode()).hexdigest()[:_UID_HASH_DIGITS]
