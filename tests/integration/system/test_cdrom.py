"""CD-ROM drives of running VMs: media and drives come and go, the VM's process stays, and what has to wait says so."""

from __future__ import annotations

import copy

import libvirt
from lxml import etree

from lab import Lab
from tests.integration.system.cluster import Cluster, Object, connection, disk, firmware_vm, guest_vm
from tests.integration.system.inside import Guest
from tests.integration.system.test_typed_reasons import stalled
from tests.integration.system.test_vm_live_edits import settled

MEDIA = "for d in /dev/sr*; do wc -c < $d 2>/dev/null || echo none; done | sort -n | xargs"
MIB = 1024 * 1024


def drive(name: str, medium: str | None = None, **fields: object) -> Object:
    """A CD-ROM drive with a Disk in it, or empty."""
    reference = {"diskRef": {"name": medium}} if medium is not None else {}
    return {"name": name, "type": "cdrom", **reference, **fields}


def process_of(cluster: Cluster, name: str) -> dict[str, int]:
    """Host → process id of the VM's QEMU, as the hosts themselves say."""
    domain = f"{cluster.namespace}.{name}"
    return {h.name: qemu.pid for h in cluster.lab.hosts for qemu in h.qemus() if qemu.name == domain}


def drives(cluster: Cluster, name: str) -> dict[str, str | None]:
    """Drive → Disk in it (None: empty) of the running domain, without the seed's. The definition must say the same."""
    for host in cluster.lab.hosts:
        with connection(host) as conn:
            for domain in conn.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
                if domain.name() == f"{cluster.namespace}.{name}":
                    live, defined = (_media(domain.XMLDesc(flags)) for flags in (0, libvirt.VIR_DOMAIN_XML_INACTIVE))
                    assert live == defined
                    return live
    raise AssertionError(f"{name} runs nowhere")


def _media(xml: str) -> dict[str, str | None]:
    found = {}
    for device in etree.fromstring(xml).findall("devices/disk[@device='cdrom']"):
        alias, source = device.find("alias"), device.find("source")
        path = None if source is None else source.get("file")
        if alias.get("name") != "ua-seed":
            disk_name = None if path is None else path.rpartition("/")[2].split(".")[1].rpartition("-")[0]
            found[alias.get("name").removeprefix("ua-disk-")] = disk_name
    return found


def test_media_and_drives_come_and_go_in_the_guest(cluster: Cluster, lab: Lab) -> None:
    isos = [disk("one", "1Mi"), disk("two", "2Mi"), disk("three", "3Mi", format="qcow2")]
    vm = guest_vm(lab, "web", 46)
    vm["spec"]["disks"].append(drive("media"))
    cluster.apply(*isos, vm)
    cluster.running("web")
    guest = Guest(cluster, "web")
    guest.ready()
    before = process_of(cluster, "web")
    seed = guest.run(MEDIA).split()[1]
    assert guest.run(MEDIA).split() == ["none", seed]

    for medium, size in (("one", 1), ("three", 3), (None, 0), ("one", 1)):
        vm["spec"]["disks"][2] = drive("media", medium)
        cluster.apply(vm)
        guest.wait(f"{medium} is in the drive", MEDIA, f"{seed} {size * MIB}" if size else f"none {seed}")
        assert drives(cluster, "web")["media"] == medium
    settled(cluster, vm, *isos)

    # A second drive; its medium is changed too, which takes another way: libvirt does not know its tray.
    more = copy.deepcopy(vm)
    more["spec"]["disks"].append(drive("more", "two"))
    cluster.apply(more)
    guest.wait("the second drive is there", MEDIA, f"{seed} {MIB} {2 * MIB}")
    settled(cluster, more, *isos)
    more["spec"]["disks"][3] = drive("more", "three")
    cluster.apply(more)
    guest.wait("its medium is changed", MEDIA, f"{seed} {MIB} {3 * MIB}")
    settled(cluster, more, *isos)
    assert drives(cluster, "web") == {"media": "one", "more": "three"}

    # A Disk is not deleted while the guest has it.
    cluster.delete("disk", "one")
    cluster.wait_condition("disk", "one", "Ready", "False", "InUse")
    vm["spec"]["disks"][2] = drive("media")
    cluster.apply(vm)
    guest.wait("the second drive is gone, the first one empty", MEDIA, f"none {seed}")
    cluster.wait_gone("disk", "one")
    settled(cluster, vm, *isos[1:])
    assert process_of(cluster, "web") == before


def test_what_a_running_vm_cannot_have_waits_and_says_so(cluster: Cluster) -> None:
    vm = firmware_vm("web")
    root = vm["spec"]["disks"][0]
    cluster.apply(disk("one", "1Mi"), disk("two", "2Mi"), vm)
    cluster.running("web")
    before = process_of(cluster, "web")

    def declare(*more: Object) -> None:
        vm["spec"]["disks"] = [root, *more]
        cluster.apply(vm)

    # The first SCSI drive brings its controller; one that is not there, and no medium at all, are told of.
    declare(drive("media", "none-such"))
    stalled(cluster, "hvm", "web", "DiskNotFound", "none-such", "drive media")
    declare(drive("media", "one"))
    settled(cluster, vm)
    assert drives(cluster, "web") == {"media": "one"}
    declare(drive("media", "none-such"))
    stalled(cluster, "hvm", "web", "DiskNotFound", "none-such", "drive media")
    assert drives(cluster, "web") == {"media": "one"}
    declare(drive("media", "two", bootOrder=1))
    stalled(cluster, "hvm", "web", "NotAnISO", "disk two", "drive media", "bootOrder", "ISO")

    # libvirt 9 takes no empty drive while the VM runs: it is ejected with its drive, which comes back with a medium.
    declare(drive("media"))
    waits = cluster.wait_condition("hvm", "web", "RestartRequired", "True")
    assert "disk-media" in waits["message"]
    cluster.wait_condition("hvm", "web", "Ready", "True")
    assert drives(cluster, "web") == {}
    declare(drive("media", "two"))
    settled(cluster, vm)
    assert drives(cluster, "web") == {"media": "two"}

    # No SATA controller takes a drive while the VM runs.
    declare(drive("media", "two"), drive("sata", "one", bus="sata"))
    waits = cluster.wait_condition("hvm", "web", "RestartRequired", "True")
    assert "disk-sata" in waits["message"]
    cluster.wait_condition("hvm", "web", "Ready", "True")
    declare(drive("media", "two"))
    settled(cluster, vm)
    assert process_of(cluster, "web") == before


def test_one_iso_is_in_many_drives_at_once(cluster: Cluster) -> None:
    cluster.apply(disk("one", "1Mi"))
    names = ("a", "b", "c")
    root = {"name": "root", "template": {"size": "1Mi", "storageDomain": "shared", "format": "raw"}}
    cluster.apply(*(firmware_vm(name, root, drive("media", "one")) for name in names))
    for name in names:
        cluster.running(name)
        assert drives(cluster, name) == {"media": "one"}
