"""libvirt's errors as the driver's: by code and domain, and by message where the code says nothing.

libvirt reports many refusals as "internal error" or "system error"; their text is then the only fact. Each text
looked for below says which call it was seen from. Whatever means that the answer, and not the request, was lost is
HostUnavailable.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from dataclasses import dataclass

import libvirt

from drivers.errors import AlreadyExists, HostTimeout, HostUnavailable, HypervisorError, NotFound, Refused, StorageFull

_Make = Callable[[str], HypervisorError]


def _refused(reason: str) -> _Make:
    return lambda message: Refused(message, reason=reason)


def _not_found(reason: str) -> _Make:
    return lambda message: NotFound(message, reason=reason)


def _exists(message: str) -> HypervisorError:
    return AlreadyExists(message, reason="AlreadyExists")


def _full(message: str) -> HypervisorError:
    return StorageFull(message, reason="StorageFull")


def _lost(message: str) -> HypervisorError:
    return HostUnavailable(message, reason="ConnectionLost")


def _busy(message: str) -> HypervisorError:
    return HostTimeout(message, reason="Busy")


_BY_CODE: dict[int, _Make] = {
    libvirt.VIR_ERR_NO_DOMAIN: _not_found("NoDomain"),
    libvirt.VIR_ERR_NO_STORAGE_POOL: _not_found("NoPool"),
    libvirt.VIR_ERR_NO_STORAGE_VOL: _not_found("NoVolume"),
    libvirt.VIR_ERR_DEVICE_MISSING: _not_found("NoDevice"),
    libvirt.VIR_ERR_DOM_EXIST: _exists,
    libvirt.VIR_ERR_STORAGE_VOL_EXIST: _exists,
    libvirt.VIR_ERR_XML_ERROR: _refused("InvalidDomain"),
    libvirt.VIR_ERR_XML_DETAIL: _refused("InvalidDomain"),
    libvirt.VIR_ERR_XML_INVALID_SCHEMA: _refused("InvalidDomain"),
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED: _refused("InvalidDomain"),
    libvirt.VIR_ERR_NO_SUPPORT: _refused("Unsupported"),
    libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED: _refused("Unsupported"),
    libvirt.VIR_ERR_OPERATION_UNSUPPORTED: _refused("Unsupported"),
    libvirt.VIR_ERR_NO_MEMORY: _refused("NoMemory"),
    libvirt.VIR_ERR_RESOURCE_BUSY: _refused("VolumeInUse"),
    # "cannot acquire state change lock": another job holds the domain; it says nothing of the host.
    libvirt.VIR_ERR_OPERATION_TIMEOUT: _busy,
    libvirt.VIR_ERR_AGENT_UNRESPONSIVE: _refused("AgentUnresponsive"),
    libvirt.VIR_ERR_AGENT_UNSYNCED: _refused("AgentUnresponsive"),
    libvirt.VIR_ERR_BLOCK_COPY_ACTIVE: _refused("BlockJobActive"),
    # The library's own connection object is closed: nothing was sent, or the answer will not come.
    libvirt.VIR_ERR_INVALID_CONN: _lost,
    libvirt.VIR_ERR_INVALID_STREAM: _lost,
}


@dataclass(frozen=True)
class _Text:
    """A text of an error whose code says nothing, and where it was seen."""

    pattern: re.Pattern[str]
    make: _Make
    seen: str


def _text(pattern: str, make: _Make, seen: str) -> _Text:
    return _Text(re.compile(pattern, re.IGNORECASE), make, seen)


_BY_TEXT: tuple[_Text, ...] = (
    _text(r"client socket is closed|connection closed due to keepalive|connection reset by peer", _lost, "any call"),
    _text(r"end of file while reading data|broken pipe|cannot (recv|send|write|read) data", _lost, "any call"),
    _text(r"(already exists|is already defined) with uuid", _exists, "define, pool: name or UUID of another"),
    _text(r"volume target path .* already exists", _exists, "create volume: a file the pool had not scanned"),
    _text(r"storage volume name .* already in use", _exists, "create volume: it is being made right now"),
    _text(r"storage source conflict with pool", _exists, "create pool: another pool has the directory"),
    _text(r"failed to get .*lock", _refused("VolumeInUse"), "start, resize: QEMU's own lock on the image"),
    _text(r"volume .* is still (in use|being allocated)", _refused("VolumeInUse"), "delete volume"),
    _text(r"disk .* already in use by other guests", _refused("VolumeInUse"), "attach"),
    _text(r"cannot allocate memory|cannot set up guest memory", _refused("NoMemory"), "start"),
    _text(
        r"cannot get interface mtu on|cannot find network interface|no such bridge", _refused("NoSuchBridge"), "start"
    ),
    _text(r"unable to add bridge|bridge .* does not exist", _refused("NoSuchBridge"), "start, attach"),
    _text(r"image is not in .* format", _refused("InvalidVolume"), "start: the file is not what its name says"),
    _text(r"cannot access storage file|could not open .*no such file", _refused("VolumeMissing"), "start, attach"),
    _text(r"no space left on device|disk quota exceeded", _full, "create, resize, upload, copy"),
    _text(r"has asynchronous jobs running", _busy, "refresh of a pool in which a copy runs"),
    _text(r"(domain|it) is already (running|active)", _refused("AlreadyRunning"), "start, resume"),
    _text(r"domain is not running|domain is not active", _refused("NotRunning"), "any call on a domain that is off"),
    _text(r"no device found with alias", _not_found("NoDevice"), "detach"),
    _text(r"(target|disk) '?\S+?'? (doesn't exist|not found)", _not_found("NoDevice"), "update: of config, of live"),
    _text(r"timed out waiting to open tray", _refused("TrayLocked"), "update: the guest has the medium in use"),
    _text(r"not support hotplugging|cannot be hotplugged", _refused("NoHotPlug"), "attach: SATA"),
    _text(r"key 'filename' must not have null value", _refused("NoHotPlug"), "attach: an empty CD-ROM drive, in 9.0"),
    _text(r"tray of device '.*' is not open", _refused("NoTray"), "update: a drive that was plugged in while it ran"),
    _text(r"guest agent is not (configured|connected)", _refused("AgentNotConnected"), "freeze, snapshot"),
    _text(r"not ready for pivot", _refused("JobNotReady"), "pivot"),
    _text(r"block job .* (still|being) .*ended", _busy, "pivot, cancel: asked for already"),
    _text(r"inaccessible backing store volume", _refused("VolumeMissing"), "create volume: an overlay on nothing"),
    _text(r"can't shrink capacity", _refused("WouldShrink"), "resize volume"),
    _text(r"child process .* unexpected exit status", _refused("OperationFailed"), "volume: qemu-img said no"),
)

_BY_ERRNO: dict[int, _Make] = {
    errno.ENOSPC: _full,
    errno.EDQUOT: _full,
    # ftruncate and fallocate beyond what the file system can hold.
    errno.EFBIG: _full,
    errno.ENOENT: _refused("PathMissing"),
    errno.ENOTDIR: _refused("PathMissing"),
    errno.ENOMEM: _refused("NoMemory"),
    errno.EACCES: _refused("PermissionDenied"),
    errno.EPERM: _refused("PermissionDenied"),
    errno.ECONNRESET: _lost,
    errno.EPIPE: _lost,
    errno.ETIMEDOUT: _lost,
}


def classify(error: libvirt.libvirtError, what: str) -> HypervisorError:
    """The typed error for what libvirt raised during `what`."""
    text = (error.get_error_message() or str(error)).strip()
    message = f"{what}: {text}"
    code = error.get_error_code()
    domain = error.get_error_domain()
    if domain == libvirt.VIR_FROM_RPC or code is None:
        # The remote driver's own transport: the daemon never gave an answer.
        return _lost(message)
    for known in _BY_TEXT:
        if known.pattern.search(text):
            return known.make(message)
    if code == libvirt.VIR_ERR_SYSTEM_ERROR and (make := _BY_ERRNO.get(error.get_int1() or 0)):
        return make(message)
    return _BY_CODE.get(code, _refused("OperationFailed"))(message)
