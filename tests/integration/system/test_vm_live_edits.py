"""An edit of a running VM reaches its guest at once where that can be, and leaves the manifest as the user wrote it."""

from __future__ import annotations

import copy
import json

from lab import Lab
from tests.integration.system.cluster import Cluster, Object, disk, guest_vm
from tests.integration.system.inside import Guest

SIZES = "cat /sys/block/vd?/size | xargs"
CARDS = "ls -d /sys/class/net/e* | wc -l"
MEDIA = "for d in /dev/sr*; do wc -c < $d 2>/dev/null || echo none; done | sort -n | xargs"
MIB = 1024 * 1024


def test_devices_come_and_go_in_the_guest(cluster: Cluster, lab: Lab) -> None:
    extras = [disk("extra", "8Mi"), disk("cd-1", "1Mi"), disk("cd-2", "2Mi")]
    vm = guest_vm(lab, "web", 45)
    vm["spec"]["disks"].append({"name": "media", "type": "cdrom", "diskRef": {"name": "cd-1"}})
    cluster.apply(*extras, vm)
    cluster.running("web")
    guest = Guest(cluster, "web")
    guest.ready()
    boot = guest.run("cat /proc/sys/kernel/random/boot_id")
    seed = int(guest.run(MEDIA).split()[0])
    assert guest.run(MEDIA).split() == [str(seed), str(MIB)]
    assert guest.run(SIZES).split() == [str(64 * 2048), str(16 * 2048)]

    more = copy.deepcopy(vm)
    more["spec"]["disks"][2]["diskRef"]["name"] = "cd-2"
    more["spec"]["disks"].append({"name": "extra", "diskRef": {"name": "extra"}})
    more["spec"]["nics"].append({"name": "second", "network": "lan", "mac": "52:54:00:aa:bb:02"})
    cluster.apply(more)
    guest.wait("the disk is there", SIZES, f"{64 * 2048} {16 * 2048} {8 * 2048}")
    guest.wait("the card is there", CARDS, "2")
    guest.wait("the other medium is in", MEDIA, f"{seed} {2 * MIB}")
    assert "52:54:00:aa:bb:02" in guest.macs()
    settled(cluster, more, *extras)

    cluster.apply(disk("extra", "12Mi"))
    more["spec"]["disks"][1]["template"]["size"] = "24Mi"
    cluster.apply(more)
    guest.wait("both disks have grown", SIZES, f"{64 * 2048} {24 * 2048} {12 * 2048}")
    settled(cluster, more, disk("extra", "12Mi"), *extras[1:])

    # Taken out of the manifest; the medium of the CD-ROM too.
    del vm["spec"]["disks"][2]["diskRef"]
    vm["spec"]["disks"][1]["template"]["size"] = "24Mi"
    cluster.apply(vm)
    guest.wait("the disk is gone", SIZES, f"{64 * 2048} {24 * 2048}")
    guest.wait("the card is gone", CARDS, "1")
    guest.wait("the drive is empty", MEDIA, f"none {seed}")
    settled(cluster, vm)
    assert guest.run("cat /proc/sys/kernel/random/boot_id") == boot
    cluster.delete("disk", "extra")
    cluster.wait_gone("disk", "extra")


def settled(cluster: Cluster, *declared: Object) -> None:
    """Nothing is left to do, `kubectl diff` shows nothing, and the objects hold what the user wrote, no more."""
    cluster.wait_condition("hvm", "web", "Ready", "True")
    cluster.wait_condition("hvm", "web", "RestartRequired", "False")
    items = [{**obj, "metadata": {**obj["metadata"], "namespace": cluster.namespace}} for obj in declared]
    manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    assert cluster.lab.kubectl("diff", "--server-side", "-f-", input=manifest) == ""
    for obj in declared:
        stored = cluster.get("hvm" if obj["kind"] == "VirtualMachine" else "disk", obj["metadata"]["name"])
        assert stored["spec"] == obj["spec"]
        assert stored["metadata"].get("annotations", {}) == {}
