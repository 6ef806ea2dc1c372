"""libvirt's errors as the contract's. The messages are those of libvirt 9.0, measured."""

import errno

import libvirt
import pytest

from drivers.errors import (
    AlreadyExists,
    HostTimeout,
    HostUnavailable,
    HypervisorError,
    NotConnected,
    NotFound,
    Refused,
    StorageFull,
)
from drivers.libvirt.classify import classify
from drivers.libvirt.connection import classify_open
from drivers.libvirt.uri import parse


def libvirt_error(
    code: int, message: str, *, domain: int = libvirt.VIR_FROM_QEMU, int1: int = -1
) -> libvirt.libvirtError:
    error = libvirt.libvirtError(message)
    error.err = (code, domain, message, 2, None, None, None, int1, -1)
    return error


INTERNAL, SYSTEM = libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_ERR_SYSTEM_ERROR
INVALID, FAILED = libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_OPERATION_FAILED
STORAGE, RPC = libvirt.VIR_FROM_STORAGE, libvirt.VIR_FROM_RPC
LOCK = 'internal error: qemu unexpectedly closed the monitor: -blockdev {}: Failed to get "write" lock\nIs another ...'

TABLE = [
    (
        libvirt_error(FAILED, "operation failed: domain 'a' already exists with uuid 819e"),
        AlreadyExists,
        "AlreadyExists",
    ),
    (
        libvirt_error(FAILED, "operation failed: domain 'a' is already defined with uuid 8"),
        AlreadyExists,
        "AlreadyExists",
    ),
    (libvirt_error(libvirt.VIR_ERR_XML_DETAIL, "(domain_definition):1: Couldn't find end"), Refused, "InvalidDomain"),
    (libvirt_error(libvirt.VIR_ERR_XML_ERROR, "XML error: an os <type> must be specified"), Refused, "InvalidDomain"),
    (
        libvirt_error(libvirt.VIR_ERR_CONFIG_UNSUPPORTED, "unsupported configuration: no machine type 'pc-q35-99'"),
        Refused,
        "InvalidDomain",
    ),
    (
        libvirt_error(SYSTEM, "inaccessible backing store volume b.raw: No such file", int1=errno.ENOENT),
        Refused,
        "VolumeMissing",
    ),
    (libvirt_error(INVALID, "block job 'vda' not ready for pivot yet"), Refused, "JobNotReady"),
    (
        libvirt_error(libvirt.VIR_ERR_BLOCK_COPY_ACTIVE, "block copy still active: disk 'vda' has a job"),
        Refused,
        "BlockJobActive",
    ),
    (
        libvirt_error(libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED, "argument unsupported: QEMU guest agent is not configured"),
        Refused,
        "AgentNotConnected",
    ),
    (
        libvirt_error(SYSTEM, "Cannot get interface MTU on 'nobr': No such device", domain=0, int1=errno.ENODEV),
        Refused,
        "NoSuchBridge",
    ),
    (
        libvirt_error(SYSTEM, "Cannot access storage file '/srv/x' (as uid:0, gid:0): No such file", int1=errno.ENOENT),
        Refused,
        "VolumeMissing",
    ),
    (libvirt_error(INTERNAL, LOCK), Refused, "VolumeInUse"),
    (
        libvirt_error(INTERNAL, "qemu: cannot set up guest memory 'pc.ram': Cannot allocate memory"),
        Refused,
        "NoMemory",
    ),
    (libvirt_error(INTERNAL, "-blockdev {}: Image is not in qcow2 format"), Refused, "InvalidVolume"),
    (libvirt_error(INVALID, "Requested operation is not valid: domain is already running"), Refused, "AlreadyRunning"),
    (libvirt_error(INVALID, "Requested operation is not valid: domain is not running"), Refused, "NotRunning"),
    (libvirt_error(libvirt.VIR_ERR_NO_DOMAIN, "Domain not found: no domain with matching uuid"), NotFound, "NoDomain"),
    (libvirt_error(INTERNAL, "internal error: no device found with alias ua-x", domain=20), NotFound, "NoDevice"),
    (libvirt_error(libvirt.VIR_ERR_INVALID_ARG, "invalid argument: target sdb doesn't exist."), NotFound, "NoDevice"),
    (libvirt_error(INTERNAL, "internal error: disk 'sdb' not found"), NotFound, "NoDevice"),
    (libvirt_error(FAILED, "operation failed: timed out waiting to open tray of 'sda'"), Refused, "TrayLocked"),
    (
        libvirt_error(
            INTERNAL,
            "internal error: unable to execute QEMU command 'blockdev-remove-medium': "
            "Tray of device 'ua-disk-x' is not open",
        ),
        Refused,
        "NoTray",
    ),
    (
        libvirt_error(
            INTERNAL,
            "internal error: unable to execute QEMU command 'device_add': Bus 'ide.0' does not support hotplugging",
        ),
        Refused,
        "NoHotPlug",
    ),
    (
        libvirt_error(INTERNAL, "internal error: argument key 'filename' must not have null value"),
        Refused,
        "NoHotPlug",
    ),
    (libvirt_error(libvirt.VIR_ERR_DEVICE_MISSING, "device not found: no device"), NotFound, "NoDevice"),
    (libvirt_error(libvirt.VIR_ERR_NO_STORAGE_VOL, "Storage volume not found", domain=STORAGE), NotFound, "NoVolume"),
    (libvirt_error(libvirt.VIR_ERR_NO_STORAGE_POOL, "Storage pool not found", domain=STORAGE), NotFound, "NoPool"),
    (
        libvirt_error(libvirt.VIR_ERR_STORAGE_VOL_EXIST, "storage volume 'v.raw' exists already", domain=STORAGE),
        AlreadyExists,
        "AlreadyExists",
    ),
    (libvirt_error(INVALID, "volume target path '/srv/un.raw' already exists"), AlreadyExists, "AlreadyExists"),
    (
        libvirt_error(INTERNAL, "internal error: storage volume name 'c' already in use."),
        AlreadyExists,
        "AlreadyExists",
    ),
    (
        libvirt_error(SYSTEM, "cannot open directory '/srv/none': No such file", int1=errno.ENOENT),
        Refused,
        "PathMissing",
    ),
    (
        libvirt_error(SYSTEM, "cannot extend file '/srv/full': File too large", int1=errno.EFBIG),
        StorageFull,
        "StorageFull",
    ),
    (libvirt_error(SYSTEM, "cannot write to stream: No space left on device"), StorageFull, "StorageFull"),
    (libvirt_error(INTERNAL, "qemu-img: error while writing: No space left on device"), StorageFull, "StorageFull"),
    (libvirt_error(SYSTEM, "cannot create path: Permission denied", int1=errno.EACCES), Refused, "PermissionDenied"),
    (libvirt_error(INTERNAL, "internal error: pool 'p' has asynchronous jobs running."), HostTimeout, "Busy"),
    (libvirt_error(libvirt.VIR_ERR_OPERATION_TIMEOUT, "cannot acquire state change lock"), HostTimeout, "Busy"),
    (libvirt_error(libvirt.VIR_ERR_NO_SUPPORT, "this function is not supported"), Refused, "Unsupported"),
    (
        libvirt_error(libvirt.VIR_ERR_AGENT_UNRESPONSIVE, "Guest agent is not responding"),
        Refused,
        "AgentUnresponsive",
    ),
    # Connections that broke: nobody knows whether the call had an effect.
    (
        libvirt_error(INTERNAL, "internal error: connection closed due to keepalive timeout", domain=RPC),
        HostUnavailable,
        "ConnectionLost",
    ),
    (libvirt_error(INTERNAL, "internal error: client socket is closed", domain=RPC), HostUnavailable, "ConnectionLost"),
    (
        libvirt_error(SYSTEM, "End of file while reading data: Input/output error", domain=RPC, int1=errno.EIO),
        HostUnavailable,
        "ConnectionLost",
    ),
    (
        libvirt_error(SYSTEM, "Cannot recv data: Connection reset by peer", domain=RPC, int1=errno.ECONNRESET),
        HostUnavailable,
        "ConnectionLost",
    ),
    (libvirt_error(libvirt.VIR_ERR_INVALID_CONN, "invalid connection pointer"), HostUnavailable, "ConnectionLost"),
    (libvirt_error(FAILED, "something that nobody has seen"), Refused, "OperationFailed"),
]


@pytest.mark.parametrize(("error", "kind", "reason"), TABLE, ids=lambda value: str(value)[:50])
def test_an_error_is_typed(error: libvirt.libvirtError, kind: type[HypervisorError], reason: str) -> None:
    typed = classify(error, "call")
    assert type(typed) is kind, typed.message
    assert typed.reason == reason
    assert typed.message.startswith("call: ")


def test_a_lost_answer_is_never_a_refusal() -> None:
    """Whatever comes from the transport says nothing about what the daemon did."""
    for code in range(1, 110):
        typed = classify(libvirt_error(code, "anything", domain=libvirt.VIR_FROM_RPC), "call")
        assert isinstance(typed, HostUnavailable)
        assert not isinstance(typed, NotConnected)


def test_an_error_without_a_code_is_a_lost_answer() -> None:
    error = libvirt.libvirtError("nothing is known")
    error.err = None
    assert isinstance(classify(error, "call"), HostUnavailable)


@pytest.mark.parametrize(
    ("uri", "code", "message", "reason"),
    [
        ("qemu+tls://h/system", SYSTEM, "Unable to read TLS confirmation: Input/output error", "TLSRefused"),
        ("qemu+tls://h/system", SYSTEM, "Our own certificate x failed validation against y", "TLSRefused"),
        ("qemu+tls://h/system", libvirt.VIR_ERR_AUTH_FAILED, "authentication failed: bad certificate", "TLSRefused"),
        ("qemu+tls://h/system", SYSTEM, "The client certificate /x/clientcert.pem has expired", "CertificateExpired"),
        ("qemu+tls://h/system", SYSTEM, "End of file while reading data", "TLSRefused"),
        (
            "qemu+tcp://h/system",
            libvirt.VIR_ERR_AUTH_FAILED,
            "authentication failed: Failed to start SASL",
            "AuthFailed",
        ),
        ("qemu+tcp://h/system", libvirt.VIR_ERR_AUTH_CANCELLED, "authentication cancelled", "AuthFailed"),
        ("qemu+ssh://h/system", SYSTEM, "Cannot recv data: No ED25519 host key is known for h", "HostKeyUnknown"),
        ("qemu+ssh://h/system", SYSTEM, "Cannot recv data: Host key verification failed.", "HostKeyUnknown"),
        ("qemu+ssh://h/system", SYSTEM, "root@h: Permission denied (publickey).: Connection reset", "AuthFailed"),
        ("qemu+ssh://h/system", SYSTEM, "ssh: Could not resolve hostname h: Name or service not known", "Unresolvable"),
        ("qemu+ssh://h/system", SYSTEM, "ssh: connect to host h port 22: Connection refused", "Unreachable"),
        ("qemu+ssh://h/system", SYSTEM, "ssh: connect to host h port 22: No route to host", "Unreachable"),
        ("qemu+tcp://h/system", INTERNAL, "something else", "Unreachable"),
        ("qemu+tcp://h/", INTERNAL, "internal error: unexpected QEMU URI path '/', try qemu:///system", "BadURI"),
    ],
)
def test_a_refused_connection_has_a_reason(uri: str, code: int, message: str, reason: str) -> None:
    failed = classify_open(libvirt_error(code, message, domain=libvirt.VIR_FROM_RPC), parse(uri))
    assert failed.reason == reason
    assert message.split(":")[0] in failed.message
