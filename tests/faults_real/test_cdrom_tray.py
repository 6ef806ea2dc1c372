"""Media that are changed against odds: the guest holds the tray; the operator dies at each of its calls meanwhile."""

from __future__ import annotations

import itertools
import time

import pytest

from lab import Lab
from tests.faults_real.crashing import Crashing
from tests.faults_real.results import Figures
from tests.integration.system.cluster import Cluster, disk, firmware_vm, guest_vm
from tests.integration.system.inside import Guest
from tests.integration.system.test_cdrom import drive, drives, process_of

MIB = 1024 * 1024


def test_a_guest_that_holds_the_tray_is_forced_after_half_a_minute(
    cluster: Cluster, lab: Lab, figures: Figures
) -> None:
    vm = guest_vm(lab, "web", 47)
    vm["spec"]["disks"].append(drive("media", "one"))
    cluster.apply(disk("one", "1Mi"), disk("two", "2Mi"), vm)
    cluster.running("web")
    guest = Guest(cluster, "web")
    guest.ready()
    before = process_of(cluster, "web")
    device = guest.run(f"for d in /dev/sr*; do [ $(wc -c <$d) != {MIB} ] || echo $d; done").strip()
    guest.run(f"sleep 600 <{device} >/dev/null 2>&1 &")

    vm["spec"]["disks"][2] = drive("media", "two")
    cluster.apply(vm)
    began = time.monotonic()
    waits = cluster.wait_condition("hvm", "web", "Ready", "False", "TrayLocked")
    assert "drive media" in waits["message"]
    cluster.wait_condition("hvm", "web", "Reconciling", "True", "TrayLocked")
    assert drives(cluster, "web") == {"media": "one"}
    # An operator that dies asks for as long again, no longer.
    cluster.deployment.kill()
    cluster.deployment.start()
    restarted = time.monotonic()
    cluster.wait("the medium is changed", lambda: live_media(cluster) == {"media": "two"}, 120)
    took = time.monotonic()
    assert took - began >= 30
    figures.within("from the operator's restart to a medium that the guest held", took - restarted, 60)
    cluster.wait_condition("hvm", "web", "Ready", "True")
    cluster.wait("it is said", lambda: "MediumForced" in cluster.events("web"), 10)
    guest.wait("the guest sees it", f"wc -c <{device}", str(2 * MIB))
    assert process_of(cluster, "web") == before


@pytest.mark.timeout(1200)
def test_the_operator_dies_while_media_are_changed(cluster: Cluster, crashing: Crashing, figures: Figures) -> None:
    """One drive is there from power-on; the other one was plugged in, and is replaced with its medium."""
    vm = firmware_vm("web")
    root = vm["spec"]["disks"][0]
    media = itertools.cycle([("one", "two"), ("two", "one")])

    def change() -> dict[str, str | None]:
        first, second = next(media)
        vm["spec"]["disks"] = [root, drive("there", first), drive("plugged", second)]
        cluster.apply(vm)
        return {"there": first, "plugged": second}

    vm["spec"]["disks"] = [root, drive("there", "two")]
    cluster.apply(disk("one", "1Mi"), disk("two", "2Mi"), vm)
    cluster.running("web")
    before = process_of(cluster, "web")
    is_so(cluster, change())
    crashing.start("web", (0, "never"))
    is_so(cluster, change())
    calls = crashing.calls("web")
    assert {"host: update_device", "host: detach_device", "host: attach_device"} <= set(calls), calls
    points = [(number, when) for number in range(1, len(calls) + 1) for when in ("before", "after")]
    reached = 0
    for point in points:
        crashing.start("web", point)
        wanted = change()
        cluster.wait(f"it dies at {point} or is done", lambda wanted=wanted: crashing.died() or done(cluster, wanted))
        reached += crashing.died()
        cluster.deployment.kill()
        cluster.deployment.start()
        is_so(cluster, wanted)
    assert process_of(cluster, "web") == before
    figures.within(f"points of a change ({', '.join(calls)}) not reached", len(points) - reached, 6, "points")


def is_so(cluster: Cluster, wanted: dict[str, str | None]) -> None:
    cluster.wait(f"{wanted} in the drives", lambda: done(cluster, wanted), 60)


def done(cluster: Cluster, wanted: dict[str, str | None]) -> bool:
    """Whether the media are in the drives and the status says so, of the newest generation."""
    found = cluster.get("hvm", "web")
    assert found is not None
    current = found["status"]["observedGeneration"] == found["metadata"]["generation"]
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in found["status"]["conditions"])
    return current and ready and live_media(cluster) == wanted


def live_media(cluster: Cluster) -> dict[str, str | None] | None:
    """What is in the drives; None while the domain and its definition differ, which they may for a moment."""
    try:
        return drives(cluster, "web")
    except AssertionError:
        return None
