"""Imports under faults, on real storage: the controller dies, the file system is full, the way is narrow."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import random
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zstandard

from tests.faults_real.results import Figures
from tests.integration.system.cluster import Cluster, Object, disk, storage

MIB = 2**20


def noise(size: int) -> bytes:
    """Bytes that no compression and no hole makes less of; the same ones each time."""
    return random.Random(size).randbytes(size)


@contextmanager
def published(cluster: Cluster, name: str, content: bytes) -> Iterator[Object]:
    """The content on the lab's image server, as the source of a Disk."""
    file = cluster.lab.state.images / f"{cluster.namespace}.{name}"
    file.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    try:
        yield {"http": {"url": f"{cluster.lab.images_url}/{file.name}", "checksum": f"sha256:{digest}"}}
    finally:
        file.unlink()


@contextmanager
def bandwidth(cluster: Cluster, domain: str, limit: str) -> Iterator[None]:
    """A limit on what is written to the storage domain."""
    cluster.patch("storagedomain", domain, {"bandwidthPerSecond": limit})
    try:
        yield
    finally:
        cluster.patch("storagedomain", domain, {"bandwidthPerSecond": "0"})


def written(cluster: Cluster) -> float:
    """Bytes that this operator's imports have written to hosts."""
    found = re.search(r"^hostler_import_bytes_total (\S+)$", cluster.deployment.metrics(), re.MULTILINE)
    assert found is not None
    return float(found[1])


def content_of(cluster: Cluster, name: str, folder: Path | None = None) -> bytes:
    """What lies on the storage once the Disk is Ready."""
    found = cluster.wait_phase("disk", name, "Ready")
    return ((folder or cluster.lab.shared) / found["status"]["path"].rpartition("/")[2]).read_bytes()


def test_goes_on_after_the_controller_died(cluster: Cluster, figures: Figures) -> None:
    content = noise(24 * MIB)
    with published(cluster, "image.raw", content) as source, bandwidth(cluster, "shared", "1500Ki"):
        before = written(cluster)
        cluster.apply(disk("web", "24Mi", source=source))
        cluster.wait("two thirds are there", lambda: written(cluster) - before >= 16 * MIB)
        cluster.deployment.restart()
        assert content_of(cluster, "web") == content
        # How far it came is noted every 5 s.
        again = written(cluster) / MIB
        figures.within("of 24 MiB, written by the second controller after 16", again, 8 + 5 * 1.5 + 1, "MiB")
    assert not [name for name in cluster.files() if ".import" in name]


def test_full_storage(cluster: Cluster, figures: Figures) -> None:
    """A file system of 64 MiB that somebody else fills while an image is written to it."""
    content = noise(24 * MIB)
    with small_file_system(cluster) as folder, published(cluster, "image.raw", content) as source:
        cluster.apply(disk("held", "4Mi", domain="small"))
        held = content_of(cluster, "held", folder)
        cluster.apply(disk("web", "24Mi", domain="small", source=source))
        cluster.wait("some of it is there", lambda: any(f.stat().st_blocks > 8192 for f in folder.glob("*web*")))
        with pytest.raises(OSError, match="No space left"):
            fill(folder / "filler")
        condition = cluster.wait_condition("disk", "web", "Ready", "False", "StorageFull")
        assert "the storage is full" in condition["message"]
        assert content_of(cluster, "held", folder) == held
        # What cannot become whole does not take up the room that others need.
        cluster.wait("nothing is left of it", lambda: not list(folder.glob(f"{cluster.namespace}.web*")))
        (folder / "filler").unlink()
        began = time.monotonic()
        assert content_of(cluster, "web", folder) == content
        figures.within("imported after there was room again", time.monotonic() - began, 75)
        assert content_of(cluster, "held", folder) == held
        for name in ("held", "web"):
            cluster.delete("disk", name)
            cluster.wait_gone("disk", name)


def fill(file: Path) -> None:
    """Write until there is no room. Raises OSError, always."""
    with file.open("wb", buffering=0) as opened:
        while True:
            opened.write(bytes(MIB))


@contextmanager
def small_file_system(cluster: Cluster) -> Iterator[Path]:
    """A StorageDomain on a file system of its own, mounted on every host; yields where this process sees it."""
    image = cluster.lab.state.folder / f"{cluster.namespace}.ext4"
    with image.open("wb") as file:
        file.truncate(64 * MIB)
    subprocess.run(["/usr/sbin/mkfs.ext4", "-q", image], check=True)
    attached = subprocess.run(["/usr/sbin/losetup", "--find", "--show", image], check=True, capture_output=True)
    device = attached.stdout.decode().strip()
    number = Path(device).stat().st_rdev
    for host in cluster.lab.hosts:
        host.run("mknod", "/dev/small", "b", str(os.major(number)), str(os.minor(number)))
        host.run("mkdir", "/srv/small")
        host.run("mount", "/dev/small", "/srv/small")
    try:
        limits = {"thresholds": {"blockFree": "1Mi"}, "trashSeconds": 0, "bandwidthPerSecond": "2Mi"}
        cluster.apply(storage("small", "/srv/small", "Shared", **limits))
        cluster.wait_phase("storagedomain", "small", "Active")
        yield Path(f"/proc/{cluster.lab.hosts[0].init.pid}/root/srv/small")
        cluster.delete("storagedomain", "small")
        cluster.wait_gone("storagedomain", "small")
    finally:
        for host in cluster.lab.hosts:
            host.run("umount", "/srv/small")
            host.run("rmdir", "/srv/small")
            host.run("rm", "/dev/small")
        subprocess.run(["/usr/sbin/losetup", "--detach", device], check=True)
        image.unlink()


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, zstandard.compress])
def test_compressed_image(cluster: Cluster, pack: Callable[[bytes], bytes]) -> None:
    content = noise(4 * MIB) + bytes(4 * MIB)
    with published(cluster, "image.raw.packed", pack(content)) as source:
        cluster.apply(disk("web", "8Mi", source=source))
        assert content_of(cluster, "web") == content
    assert not [name for name in cluster.files() if ".import" in name]


def test_bandwidth_is_shared_and_changed_at_once(cluster: Cluster, figures: Figures) -> None:
    """Two images of 16 MiB, for which the limit would leave about a minute."""
    content = noise(16 * MIB)
    with published(cluster, "image.raw", content) as source, bandwidth(cluster, "shared", "512Ki"):
        before = written(cluster)
        cluster.apply(*(disk(name, "16Mi", source=source) for name in ("one", "two")))
        cluster.wait("it has begun", lambda: written(cluster) > before)
        began, so_far = time.monotonic(), written(cluster)
        time.sleep(15)
        rate = (written(cluster) - so_far) / (time.monotonic() - began) / 1024
        figures.within("of two imports together under a limit of 512 KiB/s", rate, 512 * 1.25, "KiB/s")
        assert rate > 256
        began = time.monotonic()
        cluster.patch("storagedomain", "shared", {"bandwidthPerSecond": "0"})
        assert content_of(cluster, "one") == content_of(cluster, "two") == content
        figures.within("the rest without a limit", time.monotonic() - began, 30)
