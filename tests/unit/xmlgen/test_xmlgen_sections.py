"""What can be changed while a domain runs, and what waits for a power cycle."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from lxml import etree

from tests.unit.xmlgen.cases import BASELINE, LINUX, disk, domain, nic, spec
from xmlgen.domain import DomainInput, Image, Kept, device_xml, generate, render
from xmlgen.sections import Changes, applied, as_found, compare

CD: dict[str, Any] = {"name": "cd", "type": "cdrom"}
BEFORE: dict[str, Any] = {"disks": [disk("root"), disk("lun", bus="scsi"), CD], "nics": [nic("lan")]}


def changes(before: dict[str, Any], after: dict[str, Any]) -> Changes:
    return compare(generate(domain(spec(**before))).sections, generate(domain(spec(**after))).sections)


CHANGES: dict[str, tuple[dict[str, Any], Changes]] = {
    "nothing": ({}, Changes()),
    "a virtio disk more": ({"disks": [*BEFORE["disks"], disk("new")]}, Changes(attach=("ua-disk-new",))),
    "a SCSI disk more": (
        {"disks": [disk("root"), disk("new", bus="scsi"), *BEFORE["disks"][1:]]},
        Changes(attach=("ua-disk-new",)),
    ),
    "a SATA disk more": (
        {"disks": [*BEFORE["disks"], disk("new", bus="sata")]},
        Changes(restart=("ua-disk-new", "sata0")),
    ),
    "a CD-ROM drive more": (
        {"disks": [*BEFORE["disks"], {"name": "cd2", "type": "cdrom"}]},
        Changes(attach=("ua-disk-cd2",)),
    ),
    "a CD-ROM drive more that is booted from": (
        {"disks": [*BEFORE["disks"], disk("cd2", type="cdrom", bootOrder=1)]},
        Changes(attach=("ua-disk-cd2",), restart=("boot",)),
    ),
    "a SATA CD-ROM drive more": (
        {"disks": [*BEFORE["disks"], {"name": "cd2", "type": "cdrom", "bus": "sata"}]},
        Changes(restart=("ua-disk-cd2", "sata0")),
    ),
    "a CD-ROM drive less": ({"disks": BEFORE["disks"][:2]}, Changes(detach=("ua-disk-cd",))),
    "a SCSI disk less": ({"disks": [disk("root"), CD]}, Changes(detach=("ua-disk-lun",))),
    "a first disk more": (
        {"disks": [disk("new"), *BEFORE["disks"]]},
        Changes(attach=("ua-disk-new",), restart=("boot",)),
    ),
    "another order": ({"disks": BEFORE["disks"][::-1]}, Changes(restart=("boot",))),
    "a medium": ({"disks": [*BEFORE["disks"][:2], disk("cd", type="cdrom")]}, Changes(update=("ua-disk-cd",))),
    "a disk's bus": (
        {"disks": [disk("root", bus="scsi"), *BEFORE["disks"][1:]]},
        Changes(restart=("ua-disk-root",)),
    ),
    "a card more": ({"nics": [nic("lan"), nic("dmz", model="e1000e")]}, Changes(attach=("ua-nic-dmz",))),
    "no cards": ({"nics": []}, Changes(detach=("ua-nic-lan",))),
    "another network": ({"nics": [nic("lan", network="br1")]}, Changes(update=("ua-nic-lan",))),
    "another card model": ({"nics": [nic("lan", model="e1000e")]}, Changes(restart=("ua-nic-lan",))),
    "another network and MAC": (
        {"nics": [nic("lan", network="br1", mac="52:54:00:00:00:01")]},
        Changes(restart=("ua-nic-lan",)),
    ),
    "another boot order": ({"nics": [nic("lan", bootOrder=1)]}, Changes(restart=("boot",))),
    "memory": ({"memory": {"size": "65Mi"}}, Changes(restart=("memory",))),
    "CPUs": ({"cpu": {"cores": 3}}, Changes(restart=("cpu",))),
    "a device": ({"devices": {"rng": "Disabled"}}, Changes(restart=("rng",))),
    "everything": (
        {"machine": "pc", "firmware": {"type": "BIOS"}, "guestOS": "Windows"},
        Changes(restart=("machine", "clock", "ua-disk-cd", "sata0")),
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_what_an_edit_needs(case: str) -> None:
    after, expected = CHANGES[case]
    assert changes(BEFORE, BEFORE | after) == expected
    assert expected.empty == (case == "nothing")


@pytest.mark.parametrize("drive", [disk("lun", bus="scsi"), disk("lun", type="cdrom")], ids=["disk", "CD-ROM"])
def test_the_first_scsi_drive_brings_its_controller(drive: dict[str, Any]) -> None:
    before, after = ({"disks": [disk("root"), *more]} for more in ((), (drive,)))
    plan = changes(before, after)
    assert plan == Changes(attach=("ua-scsi", "ua-disk-lun"))
    running, desired = (generate(domain(spec(**declared))).sections for declared in (before, after))
    assert compare(applied(running, desired, plan.attach), desired).empty
    assert compare(applied(running, desired, ["ua-scsi"]), desired) == Changes(attach=("ua-disk-lun",))
    assert "virtio-scsi" in device_xml(generate(domain(spec(**after))), "ua-scsi")


def test_a_controller_takes_a_port_and_drives_wait_where_none_is_free() -> None:
    before = {"disks": [disk("root")]}
    full = {"disks": [disk("root"), *(disk(f"new{number}") for number in range(4))]}
    running, desired = (generate(domain(spec(**declared))).sections for declared in (before, full))
    running = applied(running, desired, compare(running, desired).attach)
    more = {"disks": [*full["disks"], disk("cd", type="cdrom")]}
    assert compare(running, generate(domain(spec(**more))).sections) == Changes(restart=("ua-disk-cd",))
    assert changes(before, {"disks": [*before["disks"], disk("lun", bus="scsi"), *full["disks"][1:]]}) == Changes(
        attach=("ua-scsi", "ua-disk-lun", "ua-disk-new0", "ua-disk-new1", "ua-disk-new2"), restart=("ua-disk-new3",)
    )


def test_the_last_scsi_disk_goes_without_its_controller() -> None:
    assert changes({"disks": [disk("root"), disk("lun", bus="scsi")]}, {"disks": [disk("root")]}) == Changes(
        detach=("ua-disk-lun",)
    )


def test_four_devices_find_a_port_and_the_fifth_waits() -> None:
    new = [disk(f"new{number}") for number in range(5)]
    assert changes({"disks": [disk("root")]}, {"disks": [disk("root"), *new]}) == Changes(
        attach=("ua-disk-new0", "ua-disk-new1", "ua-disk-new2", "ua-disk-new3"), restart=("ua-disk-new4",)
    )


def test_ports_are_those_of_power_on_however_often_devices_are_plugged() -> None:
    running = generate(domain(spec(disks=[disk("root")]))).sections
    for number in range(4):
        disks = [disk("root"), *(disk(f"new{index}") for index in range(number + 1))]
        desired = generate(domain(spec(disks=disks))).sections
        plan = compare(running, desired)
        assert plan == Changes(attach=(f"ua-disk-new{number}",))
        running = applied(running, desired, plan.attach)
        assert compare(running, desired).empty
    full = generate(domain(spec(disks=[*disks, disk("new4")]))).sections
    assert compare(running, full) == Changes(restart=("ua-disk-new4",))


def test_what_waits_for_a_power_cycle_still_waits_after_the_rest_is_applied() -> None:
    after = {
        "disks": [disk("root", bus="scsi"), disk("new"), disk("cd", type="cdrom")],
        "nics": [nic("lan", network="br1")],
        "memory": {"size": "65Mi"},
    }
    running, desired = generate(domain(spec(**BEFORE))).sections, generate(domain(spec(**after))).sections
    plan = compare(running, desired)
    assert plan == Changes(
        attach=("ua-disk-new",),
        detach=("ua-disk-lun",),
        update=("ua-disk-cd", "ua-nic-lan"),
        restart=("memory", "ua-disk-root"),
    )
    now = applied(running, desired, (*plan.attach, *plan.detach, *plan.update))
    assert compare(now, desired) == Changes(restart=plan.restart)
    assert compare(now, running).attach == ("ua-disk-lun",), "going back is seen as well"


def test_what_was_not_done_is_not_recorded() -> None:
    running = generate(domain(spec(**BEFORE))).sections
    desired = generate(domain(spec(disks=[disk("new")]))).sections
    assert applied(running, desired, ()) == running


def test_neither_epoch_nor_kept_addresses_nor_the_host_are_a_change() -> None:
    source = domain(spec(**BEFORE))
    kept = {alias: Kept(alias, "pci:0000:05:00.0", "vdf") for alias in ("ua-disk-root", "ua-nic-lan")}
    later = dataclasses.replace(source, kept=kept, identity=dataclasses.replace(source.identity, epoch=9))
    one, other = generate(source), generate(later)
    assert compare(one.sections, other.sections).empty
    assert render(one, LINUX) != render(other, LINUX)


def test_a_new_baseline_waits_for_a_power_cycle() -> None:
    baseline = BASELINE.model_validate(
        BASELINE.to_dict() | {"cpu": {"model": "Nehalem"}, "machines": [{"family": "q35", "type": "pc-q35-8.0"}]}
    )
    running, desired = (generate(domain(spec(**BEFORE), baseline=pool)) for pool in (BASELINE, baseline))
    assert compare(running.sections, desired.sections) == Changes(restart=("machine", "cpu"))


def test_a_swapped_image_waits_for_a_power_cycle() -> None:
    def source(path: str) -> DomainInput:
        return domain(spec(disks=[disk("root")]), images=lambda _: Image(path, "qcow2"))

    assert compare(generate(source("/a")).sections, generate(source("/b")).sections) == Changes(
        restart=("ua-disk-root",)
    )


def test_another_seed_waits_for_the_next_start_which_makes_it() -> None:
    documents = [generate(domain(spec(), seed=seed)) for seed in (None, "/srv/1.iso", "/srv/2.iso")]
    assert compare(documents[1].sections, documents[2].sections) == Changes(restart=("ua-seed",))
    assert compare(documents[0].sections, documents[1].sections) == Changes(restart=("ua-seed",))
    assert "/srv/2.iso" in device_xml(documents[2], "ua-seed")


def test_a_device_alone_is_as_in_the_document_but_for_the_boot_order() -> None:
    document = generate(domain(spec(disks=[disk("root"), CD], nics=[nic("lan", bootOrder=1)]), seed="/srv/1.iso"))
    whole = etree.fromstring(render(document, LINUX))
    for alias in ("ua-disk-root", "ua-disk-cd", "ua-nic-lan", "ua-seed"):
        (device,) = whole.xpath("devices/*[alias/@name=$alias]", alias=alias)
        alone = etree.fromstring(device_xml(document, alias))
        boot = device.find("boot")
        if boot is not None:
            device.remove(boot)
        assert [(part.tag, dict(part.attrib), part.text or "") for part in device.iter() if len(part) == 0] == [
            (part.tag, dict(part.attrib), part.text or "") for part in alone.iter() if len(part) == 0
        ]
    with pytest.raises(KeyError):
        device_xml(document, "ua-rng")


# By the devices that are there ---------------------------------------------------------------------------------------

STAMPED = generate(domain(spec(**BEFORE))).sections
THERE: dict[str, str | None] = {
    "ua-disk-root": "/srv/vms/root.qcow2",
    "ua-disk-lun": "/srv/vms/lun.qcow2",
    "ua-disk-cd": None,
    "ua-nic-lan": None,
    "ua-scsi": None,
    "ua-rng": None,
}


def found(desired: dict[str, Any] = BEFORE, stamped: Any = STAMPED, **devices: str | None) -> Changes:
    wanted = generate(domain(spec(**desired))).sections
    there = THERE | {alias.replace("_", "-"): source for alias, source in devices.items()}
    return compare(as_found(stamped, wanted, there), wanted)


def test_a_domain_that_is_as_its_stamp_says_is_as_found() -> None:
    assert found().empty
    assert as_found(STAMPED, STAMPED, THERE) == STAMPED


def test_a_medium_is_the_one_in_the_drive_whatever_the_stamp_says() -> None:
    assert found(ua_disk_cd="/srv/vms/late.iso") == Changes(update=("ua-disk-cd",))
    full = {**BEFORE, "disks": [*BEFORE["disks"][:2], disk("cd", type="cdrom")]}
    path = str(domain(spec(**full)).drives[2].image.path)  # type: ignore[union-attr]
    assert found(full, ua_disk_cd=path).empty, "it was changed, and its stamp was lost"
    stamped = generate(domain(spec(**full))).sections
    assert found(full, stamped) == Changes(update=("ua-disk-cd",)), "the stamp is there, and the medium is not"


@pytest.mark.parametrize("alias", ["ua-disk-lun", "ua-disk-cd", "ua-disk-root", "ua-nic-lan"])
def test_a_device_that_is_not_there_is_plugged_in(alias: str) -> None:
    there = {name: source for name, source in THERE.items() if name != alias}
    assert compare(as_found(STAMPED, STAMPED, there), STAMPED) == Changes(attach=(alias,))
    desired = tuple((name, sha) for name, sha in STAMPED if name.partition(":")[0] != alias)
    assert compare(as_found(STAMPED, desired, there), desired).detach == (alias,), "the definition may have it still"


def test_a_device_that_came_late_goes_again_unless_it_is_wanted() -> None:
    assert found(ua_disk_old="/srv/vms/old.iso") == Changes(detach=("ua-disk-old",))
    wanted = {**BEFORE, "disks": [*BEFORE["disks"], disk("old", type="cdrom")]}
    assert found(wanted, ua_disk_old="/srv/vms/old.iso") == Changes(attach=("ua-disk-old",)), "and so it is stamped"


def test_what_is_fixed_at_power_on_is_as_stamped() -> None:
    sata = {"disks": [disk("root", bus="sata")], "nics": []}
    stamped = generate(domain(spec(**sata))).sections
    assert compare(as_found(stamped, stamped, {}), stamped).empty
