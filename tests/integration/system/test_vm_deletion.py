"""What goes with a VM that is deleted, what waits in the trash, and what is left on purpose."""

from __future__ import annotations

from lab import Lab
from lab.oracle import Expectation, Oracle
from tests.integration.system.cluster import Cluster, connection, firmware_vm, guest_vm
from tests.integration.system.inside import Guest


def test_uefi_guest_boots_and_takes_everything_with_it(cluster: Cluster, lab: Lab) -> None:
    vm = guest_vm(lab, "web", 46, firmware={"type": "UEFI"})
    vm["spec"]["memory"]["size"] = "256Mi"
    trash = set(cluster.files())  # of an earlier run in this lab
    cluster.apply(vm)
    cluster.running("web")
    guest = Guest(cluster, "web")
    guest.ready()
    assert guest.run("ls -d /sys/firmware/efi").strip() == "/sys/firmware/efi"
    document = guest.document()
    nvram = document.find("os/nvram/source").get("file")
    assert nvram.startswith(f"/srv/shared/{cluster.namespace}.web-")
    files = sorted(set(cluster.files()) - trash)
    assert sorted(kinds(files)) == ["fd", "iso", "json", "json", "qcow2", "raw"]
    uuid = document.findtext("uuid")
    machine = Oracle(lab.state, from_now=True)

    cluster.patch("hvm", "web", {"runPolicy": "Halted"})
    cluster.wait_phase("hvm", "web", "Stopped")
    assert sorted(set(cluster.files()) - trash) == files, "a VM that is off keeps its variables"
    cluster.patch("hvm", "web", {"runPolicy": "Always"})
    cluster.running("web")

    cluster.delete("hvm", "web")
    cluster.wait_gone("hvm", "web")
    for name in ("web-root", "web-data"):
        cluster.wait_gone("disk", name)
    assert cluster.domains("web") == {}
    left = sorted(set(cluster.files()) - trash)
    assert [f for f in left if f.endswith((".iso", ".fd"))] == []
    marks = [f for f in left if ".trash-" in f]
    volumes = [f for f in left if f.endswith((".qcow2", ".raw"))]
    assert sorted(f.partition(".trash-")[0] for f in marks) == sorted(volumes)
    assert len(volumes) == 2, "deleted disks wait in the trash"
    found = machine.check(Expectation(files=["*"]))
    assert [v for v in found if v.subject == uuid] == []


def kinds(files: list[str]) -> list[str]:
    """The files' suffixes."""
    return [f.rpartition(".")[2] for f in files]


def test_orphan_is_left_as_it_runs(cluster: Cluster) -> None:
    cluster.apply(firmware_vm("web", lifecycle={"shutdownTimeoutSeconds": 1, "deletionPolicy": "Orphan"}))
    place = cluster.running("web")["status"]["placement"]["host"]
    host = cluster.lab.host(place)
    qemu = host.qemu(f"{cluster.namespace}.web")
    files = cluster.files()
    cluster.delete("hvm", "web")
    cluster.wait_gone("hvm", "web")
    cluster.deployment.restart()
    cluster.whole()
    assert cluster.get("disk", "web-root")["metadata"].get("deletionTimestamp") is None
    assert cluster.domains("web") == {place: "running"}
    assert host.qemu(qemu.name).pid == qemu.pid, "the very same QEMU"
    assert cluster.files() == files
    # The disk is in use by a domain that no object speaks of: it is not deleted under it.
    cluster.delete("disk", "web-root")
    cluster.wait_condition("disk", "web-root", "Ready", "False", "InUse")
    with connection(host) as conn:
        domain = conn.lookupByName(qemu.name)
        domain.destroy()
        domain.undefine()
    cluster.wait_gone("disk", "web-root")
