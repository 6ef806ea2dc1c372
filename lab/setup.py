"""Installs what the lab and the build of the Python packages need from Debian, and nothing that is there already.

Runs with any Python 3.11 before a virtual environment exists: `python3 lab/setup.py`. Hence the standard
library only, and nothing else of the lab. Services of the packages are neither started nor enabled: while apt
runs, the programs by which packages do that are covered by /bin/true in a mount namespace of its own, so that
nothing has to be taken back afterwards, whatever happens.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

OLDEST_DEBIAN = 12
OLDEST_PYTHON = (3, 11)

PACKAGES = {
    "the hosts": (
        "bindfs",
        "iproute2",
        "iputils-ping",
        "libvirt-clients",
        "libvirt-daemon-driver-qemu",
        "libvirt-daemon-system",
        "openssh-client",
        "openssh-server",
        "ovmf",
        "qemu-system-x86",
        "qemu-utils",
    ),
    "the guest image": ("cpio", "dosfstools", "mtools", "syslinux"),
    "the Python packages": ("ca-certificates", "gcc", "libc6-dev", "libvirt-dev", "pkg-config"),
}

# Programs by which maintainer scripts start services or have them started at boot.
SERVICE_STARTERS = ("invoke-rc.d", "update-rc.d", "deb-systemd-invoke", "deb-systemd-helper")
_INSTALL = """
set -e
for program in $STARTERS; do mount --bind /bin/true "$program"; done
apt-get -qq update
apt-get -qq -o Dpkg::Use-Pty=0 install --no-install-recommends "$@" </dev/null
"""


class SetupError(Exception):
    """Why the machine cannot be set up; the message says what to do."""


def wanted() -> dict[str, str]:
    """Package name to what it is for. Python's own parts are asked for only if this interpreter lacks them."""
    found = {package: purpose for purpose, packages in PACKAGES.items() for package in packages}
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        found["python3-dev"] = "the Python packages"
    if importlib.util.find_spec("ensurepip") is None:
        found["python3-venv"] = "the virtual environment"
    return found


def missing(packages: list[str]) -> list[str]:
    """Those that are not installed."""
    if not shutil.which("dpkg-query"):
        raise SetupError(f"this is no Debian system (no dpkg-query). The lab needs: {' '.join(packages)}")
    query = ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *packages]
    said = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    return sorted(set(packages) - set(installed(said)))


def installed(said: str) -> list[str]:
    """Packages that dpkg-query's lines of name and status call installed."""
    lines = (line.split() for line in said.splitlines())
    return [words[0] for words in lines if words[1:] == ["installed"]]


def check_system(os_release: str) -> None:
    """Raise SetupError unless this content of /etc/os-release is Debian's, new enough."""
    lines = (line.partition("=") for line in os_release.splitlines() if "=" in line)
    facts = {name: value.strip("\"'") for name, _, value in lines}
    version = facts.get("VERSION_ID", "")
    # Debian's testing and unstable have no number.
    old = version.split(".")[0].isdigit() and int(version.split(".")[0]) < OLDEST_DEBIAN
    if facts.get("ID") != "debian" or old:
        name = facts.get("PRETTY_NAME", "an unknown system")
        raise SetupError(f"the lab installs its packages on Debian {OLDEST_DEBIAN} or newer; this is {name}")


def install(packages: list[str]) -> None:
    """Install from Debian without starting a service. Raises SetupError if apt-get fails."""
    starters = [path for name in SERVICE_STARTERS if (path := shutil.which(name, path="/usr/sbin:/usr/bin"))]
    environment = {
        **os.environ,
        "STARTERS": " ".join(starters),
        "DEBIAN_FRONTEND": "noninteractive",
        "NEEDRESTART_SUSPEND": "1",
    }
    command = ["unshare", "--mount", "sh", "-c", _INSTALL, "install", *packages]
    if subprocess.run(command, env=environment, check=False).returncode:
        raise SetupError(f"apt-get could not install: {' '.join(packages)} (what it said is above)")


def main() -> int:
    """Install what is missing; returns the exit status."""
    if sys.version_info < OLDEST_PYTHON:
        raise SetupError(
            f"Python {'.'.join(map(str, OLDEST_PYTHON))} or newer is needed; this is {sys.version.split()[0]}"
        )
    purposes = wanted()
    lacking = missing(list(purposes))
    if not lacking:
        return 0
    check_system(Path("/etc/os-release").read_text())
    for purpose in sorted({purposes[package] for package in lacking}):
        print(f"missing for {purpose}: {' '.join(name for name in lacking if purposes[name] == purpose)}", flush=True)
    if os.geteuid() == 0:
        install(lacking)
    elif shutil.which("sudo"):
        return subprocess.run(["sudo", sys.executable, str(Path(__file__).resolve())], check=False).returncode
    else:
        raise SetupError(f"run this as root: apt-get install --no-install-recommends {' '.join(lacking)}")
    if left := missing(list(purposes)):
        raise SetupError(f"still not installed: {' '.join(left)}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        sys.exit(1)
