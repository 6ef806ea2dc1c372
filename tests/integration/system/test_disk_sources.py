"""Where a disk's content comes from: downloaded, copied from a file, or taken over; and what is refused."""

from __future__ import annotations

import hashlib
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.integration.system.cluster import Cluster, Object, disk
from tests.integration.system.test_typed_reasons import stalled

CONTENT = bytes(range(256)) * 4096 + bytes(2**20)
"""Two mebibytes, the second one empty."""


@pytest.fixture
def slow_server() -> Iterator[str]:
    """Serves CONTENT in twenty pieces, half a second apart."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            piece = len(CONTENT) // 20 + 1
            for start in range(0, len(CONTENT), piece):
                self.wfile.write(CONTENT[start : start + piece])
                self.wfile.flush()
                time.sleep(0.5)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/image.raw"
    server.shutdown()
    server.server_close()


def checksum(content: bytes) -> str:
    return f"sha512:{hashlib.sha512(content).hexdigest()}"


def volume(cluster: Cluster, found: Object) -> Path:
    """The file behind a Disk on the shared storage."""
    return cluster.lab.shared / str(found["status"]["path"]).rpartition("/")[2]


def test_download_shows_its_progress(cluster: Cluster, slow_server: str) -> None:
    source = {"http": {"url": slow_server, "checksum": checksum(CONTENT)}}
    cluster.apply(disk("web", "4Mi", source=source))
    cluster.wait_phase("disk", "web", "Importing")
    seen: list[int] = []

    def ready() -> bool:
        status = (cluster.get("disk", "web") or {}).get("status", {})
        seen.extend([int(status["progress"].removesuffix("%"))] if "progress" in status else [])
        return bool(status.get("phase") == "Ready")

    cluster.wait("the image is there", ready)
    assert len(set(seen) - {0, 100}) >= 2 and seen == sorted(seen)
    found = cluster.wait_condition("disk", "web", "Ready", "True") and cluster.get("disk", "web")
    assert found is not None and "progress" not in found["status"] and found["status"]["virtualSize"] == "4Mi"
    content = volume(cluster, found).read_bytes()
    assert content.startswith(CONTENT) and len(content) == 4 * 2**20
    assert volume(cluster, found).stat().st_blocks * 512 < 1.5 * 2**20, "what is empty takes no room"
    assert not [name for name in cluster.files() if name.endswith(".import")]


def test_import_goes_on_elsewhere_when_its_host_is_lost(cluster: Cluster, slow_server: str) -> None:
    source = {"http": {"url": slow_server, "checksum": checksum(CONTENT)}}
    cluster.apply(disk("web", "4Mi", source=source))
    cluster.wait("some of it is there", lambda: _partial(cluster))
    # Work on a shared domain goes to the first host by name.
    first = cluster.lab.host("kvm1")
    first.partition()
    cluster.wait_phase("host", "kvm1", "NonResponsive")
    found = cluster.wait_phase("disk", "web", "Ready")
    content = CONTENT.ljust(4 * 2**20, b"\0")
    assert volume(cluster, found).read_bytes() == content
    first.heal()
    cluster.whole()
    time.sleep(5)
    assert volume(cluster, found).read_bytes() == content
    cluster.wait_condition("disk", "web", "Ready", "True")


def _partial(cluster: Cluster) -> bool:
    return any((cluster.lab.shared / name).read_bytes().startswith(CONTENT[:4096]) for name in cluster.files())


def test_file_of_the_domain_is_copied_and_existing_taken_over(cluster: Cluster) -> None:
    given = cluster.lab.shared / f"{cluster.namespace}.given.raw"
    mine = cluster.lab.shared / f"{cluster.namespace}.mine.raw"
    for file in (given, mine):
        file.write_bytes(CONTENT)
    try:
        copied = {"file": {"path": f"/srv/shared/{given.name}", "checksum": checksum(CONTENT)}}
        cluster.apply(
            disk("copied", "2Mi", source=copied, format="qcow2"),
            disk("taken", "2Mi", source={"existing": {"path": mine.name}}),
            disk("small", "1Mi", source={"existing": {"path": given.name}}),
        )
        found = cluster.wait_phase("disk", "copied", "Ready")
        read = subprocess.run(
            ["qemu-img", "convert", "-O", "raw", str(volume(cluster, found)), f"{given}.read"], check=True
        )
        assert read.returncode == 0
        assert Path(f"{given}.read").read_bytes() == given.read_bytes() == CONTENT
        found = cluster.wait_phase("disk", "taken", "Ready")
        assert volume(cluster, found) == mine and mine.read_bytes() == CONTENT
        stalled(cluster, "disk", "small", "ImageTooLarge", "2Mi")
        # What was taken over is kept when its Disk goes, and can be taken again, under another name too.
        for name in ("taken", "again", "taken"):
            cluster.apply(disk(name, "2Mi", source={"existing": {"path": mine.name}}))
            cluster.wait_phase("disk", name, "Ready")
            if name == "again":
                cluster.apply(disk("thief", "2Mi", source={"existing": {"path": mine.name}}))
                stalled(cluster, "disk", "thief", "OwnedByOther", "again")
                cluster.delete("disk", "thief")
                cluster.wait_gone("disk", "thief")
            cluster.delete("disk", name)
            cluster.wait_gone("disk", name)
            assert mine.read_bytes() == CONTENT
    finally:
        for file in cluster.lab.shared.glob(f"{cluster.namespace}.*.raw*"):
            file.unlink()


def test_image_with_a_backing_file_is_refused(cluster: Cluster) -> None:
    base, layer = (cluster.lab.shared / f"{cluster.namespace}.{name}.qcow2" for name in ("base", "layer"))
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", base, "1M"], check=True)
    options = ["-b", "/etc/passwd", "-F", "raw"]
    subprocess.run(["qemu-img", "create", "-q", "-u", "-f", "qcow2", *options, layer, "1M"], check=True)
    content = layer.read_bytes()
    published = cluster.lab.state.images / layer.name
    published.write_bytes(content)
    try:
        url = f"{cluster.lab.images_url}/{layer.name}"
        cluster.apply(
            disk("http", "1Mi", format="qcow2", source={"http": {"url": url, "checksum": checksum(content)}}),
            disk("file", "1Mi", format="qcow2", source={"file": {"path": layer.name, "checksum": checksum(content)}}),
            disk("existing", "1Mi", format="qcow2", source={"existing": {"path": layer.name}}),
        )
        for name in ("http", "file", "existing"):
            stalled(cluster, "disk", name, "BackingFile", "qemu-img convert")
        assert cluster.files() == sorted([base.name, layer.name])
    finally:
        for file in (base, layer, published):
            file.unlink()
