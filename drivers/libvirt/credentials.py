"""A host's credentials as the files that libvirt and ssh want: in a private folder, in memory where that can be.

libvirt takes keys by path only. Each connection's files lie in a folder of their own (mode 0700), which is removed
when the host is closed; changed credentials get a new folder, so that no connection ever sees half of each. A process
that is killed leaves its folders; each is locked while its process lives, and the next removes those that nobody holds.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from drivers.errors import ConnectFailed
from drivers.hypervisor import HostTarget
from drivers.libvirt.uri import Address, Transport, check_credentials, with_parameters

_PREFIX = "hostler-credentials-"

_TLS_FILES = {"ca.crt": "cacert.pem", "tls.crt": "clientcert.pem", "tls.key": "clientkey.pem"}
_SSH_FILES = {"ssh-privatekey": "identity", "known_hosts": "known_hosts"}

_SSH_COMMAND = Path(__file__).with_name("ssh-command")

_SSH_CONFIG = """\
Host *
    UserKnownHostsFile {folder}/known_hosts
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
    UpdateHostKeys no
    IdentitiesOnly yes
    IdentityAgent none
    BatchMode yes
    PreferredAuthentications publickey
    ConnectTimeout 10
    ServerAliveInterval 5
    ServerAliveCountMax 3
    LogLevel ERROR
"""


class Credentials:
    """The files of one host's credentials, and the URI that uses them. Remove them with `close`."""

    def __init__(self, address: Address, target: HostTarget) -> None:
        """Raises ConnectFailed(CredentialsIncomplete)."""
        check_credentials(address, target)
        self._folder: Path | None = None
        self._address = address
        self._values = dict(target.credentials)
        self._closed = False
        self._hold: int | None = None

    @property
    def login(self) -> tuple[str, str] | None:
        """User and password for SASL, if the host wants that."""
        if "username" not in self._values:
            return None
        return self._values["username"].decode(), self._values.get("password", b"").decode()

    @property
    def folder(self) -> Path | None:
        """Where the files lie, after `uri` was asked for; None for transports without files."""
        return self._folder

    def uri(self) -> str:
        """The URI for libvirt; the files exist from now on. Blocking, but for a few small files only."""
        if self._address.transport is Transport.TLS:
            return with_parameters(self._address.uri, {"pkipath": str(self._write(_TLS_FILES))})
        if self._address.transport is Transport.SSH:
            folder = self._write(_SSH_FILES)
            _private_file(folder / "ssh_config", _SSH_CONFIG.format(folder=folder).encode())
            return with_parameters(
                self._address.uri,
                {"keyfile": str(folder / "identity"), "command": str(_SSH_COMMAND), "no_tty": "1"},
            )
        return self._address.uri

    def close(self) -> None:
        """Remove the files. They are not made again."""
        self._closed = True
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        if self._hold is not None:
            os.close(self._hold)
            self._hold = None

    def _write(self, files: Mapping[str, str]) -> Path:
        if self._closed:
            raise ConnectFailed("the host was removed", reason="CredentialsIncomplete")
        if self._folder is None:
            base = Path(_memory_folder() or tempfile.gettempdir())
            _remove_abandoned(base)
            # It gets the name that others look for only once it is locked.
            unlocked = Path(tempfile.mkdtemp(prefix=f"new-{_PREFIX}", dir=base))
            self._hold = os.open(unlocked, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(self._hold, fcntl.LOCK_EX)
            folder = unlocked.rename(base / unlocked.name.removeprefix("new-"))
            for key, name in files.items():
                content = self._values[key]
                # ssh refuses a private key whose last line does not end.
                _private_file(folder / name, content if content.endswith(b"\n") else content + b"\n")
            self._folder = folder
        return self._folder


def _remove_abandoned(base: Path) -> None:
    for folder in base.glob(f"{_PREFIX}*"):
        # Not ours to open, or gone meanwhile, or held by a living process: each is a reason to leave it alone.
        with contextlib.suppress(OSError):
            hold = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(hold, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(hold)


def _private_file(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def _memory_folder() -> str | None:
    """A folder in memory, None where there is none that can be written."""
    shm = "/dev/shm"  # noqa: S108 - a folder with a random name and mode 0700 is made in it
    return shm if os.path.ismount(shm) and os.access(shm, os.W_OK) else None
