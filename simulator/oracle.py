"""The judge of a run. It goes by the simulated truth and by what users declared, never by our status alone.

What must hold at every instant the world records by itself (two writers, a VM running twice, a file deleted under a
guest); the rest is asked when everything has come to rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from crds.quantity import to_bytes
from crds.virtual_machine import DiskType
from drivers.simulated.files import Store
from drivers.simulated.machine import Machine, Process
from drivers.xmlread import read_domain
from engine.keys import Key
from simulator.manifests import Object
from simulator.scene import Scene
from xmlgen import names

OURS = ("Host", "HostPool", "StorageDomain", "Network", "Disk", "VirtualMachine")


def judge(scene: Scene) -> list[str]:
    """Everything that is wrong, in words; empty when all is as it must be."""
    return [*always(scene), *_objects(scene), *_machines(scene), *_disks(scene), *_files(scene), *_processes(scene)]


def always(scene: Scene) -> Iterator[str]:
    """What the world saw happen that must never happen (I1, I3)."""
    for violation in scene.world.violations:
        yield f"at {violation.time:.1f}: {violation.breach} on {', '.join(violation.machines)}: {violation.what}"
    yield from scene.broken
    for process in scene.processes:
        if process.failure is not None:
            yield f"{process.name} ended by itself: {process.failure!r}"


def _processes(scene: Scene) -> Iterator[str]:
    running = [process for process in scene.processes if not process.scope.dead]
    for process in running:
        if process.runtime is None:
            yield f"{process.name} never began to work"


def _objects(scene: Scene) -> Iterator[str]:
    """No edit lost (I4), nothing left of what was deleted, nothing that nobody declared."""
    expected = dict(scene.intent)
    for key, spec in scene.intent.items():
        if key.kind == "VirtualMachine":
            expected |= {Key("Disk", key.namespace, name): t for name, t in _own_disks(key.name, spec)}
    for kind in OURS:
        for obj in scene.server.all(kind):
            key = Key.of({**obj, "kind": kind})
            if key not in expected:
                yield f"{key} is still there: {obj['metadata'].get('finalizers')} {_reason(obj)}"
                continue
            if key in scene.intent and obj["spec"] != scene.intent[key]:
                yield f"{key}: the spec is {obj['spec']}, and {scene.intent[key]} was declared"
            if (obj.get("status") or {}).get("observedGeneration") != obj["metadata"]["generation"]:
                yield f"{key}: generation {obj['metadata']['generation']} was never observed"
    for key in expected:
        if key.kind in OURS and scene.server.get(key.kind, key.name, key.namespace) is None:
            yield f"{key} is not there"


def _machines(scene: Scene) -> Iterator[str]:
    """Exactly one process for each VM that shall run, none for any other, and a status that says so (I1, I9)."""
    where: dict[str, list[tuple[str, Process]]] = {}
    for name, machine in scene.world.machines.items():
        for process in machine.processes():
            where.setdefault(process.name, []).append((name, process))
    for key, spec in scene.intent.items():
        if key.kind != "VirtualMachine":
            continue
        variables = scene.volumes.get(key)
        if variables is not None and all(file is not variables for file in scene.shared.files.values()):
            yield f"{key} has lost its UEFI variables"
        found = where.pop(names.domain_name(key.namespace, key.name), [])
        vm = scene.server.get(key.kind, key.name, key.namespace) or {}
        yield from _machine(scene, key, spec, found, vm.get("status") or {}, vm)
    for name, strays in where.items():
        yield f"domain {name} runs on {[host for host, _ in strays]}, and nobody declares it"


def _machine(
    scene: Scene, key: Key, spec: Object, found: list[tuple[str, Process]], status: Mapping[str, Any], vm: Object
) -> Iterator[str]:
    wanted = _shall_run(spec)
    if len(found) != int(wanted):
        yield f"{key} runs {len(found)} times ({[host for host, _ in found]}), not {int(wanted)}: {_reason(vm)}"
        return
    placement = status.get("placement") or {}
    phase = "Running" if wanted else "Stopped"
    if status.get("phase") != phase:
        yield f"{key} is {phase}, and its status says {status.get('phase')}: {_reason(vm)}"
    if not wanted:
        if placement.get("candidates"):
            yield f"{key} is off, and {placement['candidates']} are candidates still"
        return
    host, process = found[0]
    if placement.get("host") != host or host not in (placement.get("candidates") or []):
        yield f"{key} runs on {host}, and its placement is {placement}"
    if process.uuid != status.get("uuid"):
        yield f"{key} runs as {process.uuid}, and its status says {status.get('uuid')}"
    yield from _media(scene, key, spec, scene.world.machines[host], process)
    opened = Counter(name for _, name in process.images)
    for disk in _disks_of(scene, key, spec, DiskType.DISK):
        name = _volume(disk)
        if opened.pop(name, 0) != 1:
            yield f"{key} has not opened {name} once: {[name for _, name in process.images]}"
    if (spec.get("firmware") or {}).get("type") == "UEFI" and not any(n.endswith(".nvram.fd") for n in opened):
        yield f"{key} runs without its UEFI variables"
    for name in opened:
        if not name.endswith(".nvram.fd"):
            yield f"{key} writes {name}, which is no disk of it"


def _media(scene: Scene, key: Key, spec: Object, machine: Machine, process: Process) -> Iterator[str]:
    """The declared media are in the drives and no others, and the definition says the same."""
    wanted = sorted(_volume(disk) for disk in _disks_of(scene, key, spec, DiskType.CDROM))
    found = sorted(name for _, name in process.media if not name.endswith(".seed.iso"))
    if found != wanted:
        yield f"{key} has {found} in its drives, and {wanted} is declared"
    domain = machine.daemon.domains[process.uuid]
    assert domain.qemu is not None
    live, defined = (
        {device.alias: device.source for device in read_domain(document.text).devices if device.alias.startswith("ua-")}
        for document in (domain.qemu.live, domain.definition)
    )
    if live != defined:
        yield f"{key} runs with {live}, and its definition says {defined}"


def _volume(disk: Object) -> str:
    name: str = ((disk.get("status") or {}).get("volume") or {}).get("name", "")
    return name


def _disks(scene: Scene) -> Iterator[str]:
    """One whole volume for each Disk, the one that it ever had (I11), of the declared size and format."""
    for disk in scene.server.all("Disk"):
        key = Key.of(disk)
        file = scene.file_of(disk)
        if (disk.get("status") or {}).get("phase") != "Ready" or file is None:
            yield f"{key} is not whole (its file: {file is not None}): {_reason(disk)}"
            continue
        if file.capacity != to_bytes(disk["spec"]["size"]):
            yield f"{key} is {file.capacity} bytes large, and {disk['spec']['size']} was declared"
        if file.format != disk["spec"].get("format", "qcow2"):
            yield f"{key} is {file.format}"
        if scene.volumes.get(key) is not file:
            yield f"{key} was Ready, and has another file now: what was in it is lost"
        source = _image(scene, disk)
        if source is not None and file.shown().read(0, len(source)) != source:
            yield f"{key} does not hold what its source holds"


def _image(scene: Scene, disk: Object) -> bytes | None:
    """What the Disk was to be filled with."""
    source = disk["spec"].get("source") or {}
    if "http" in source:
        return scene.web.files[urlsplit(source["http"]["url"]).path]
    if "file" in source:
        image = scene.shared.files[source["file"]["path"]].shown()
        return bytes(image.read(0, image.size))
    return None


def _files(scene: Scene) -> Iterator[str]:
    """No file that nobody has: no orphaned volume, record, download, seed; no definition of a VM that is off (I3)."""
    wanted: dict[str, set[str]] = {name: {names.MARKER} for name in scene.world.stores}
    for disk in scene.server.all("Disk"):
        volume = (disk.get("status") or {}).get("volume") or {}
        where = "shared" if disk["spec"]["storageDomain"] == "shared" else f"{volume.get('host')}-local"
        wanted.setdefault(where, set()).update({volume.get("name", ""), names.record_name(volume.get("name", ""))})
        source = ((disk["spec"].get("source") or {}).get("file") or {}).get("path")
        wanted["shared"].update({source} if source else ())
    for vm in scene.server.all("VirtualMachine"):
        for file in (vm.get("status") or {}).get("files") or []:
            for names_of in wanted.values():
                names_of.add(file["name"])
    for name, store in scene.world.stores.items():
        for file_name in sorted(set(store.files) - wanted[name] - _thrown_away(store)):
            yield f"{store.name}: {file_name} is nobody's"
    declared = {
        names.domain_name(key.namespace, key.name)
        for key, spec in scene.intent.items()
        if key.kind == "VirtualMachine" and _shall_run(spec)
    }
    for host, machine in scene.world.machines.items():
        for domain in _defined(machine):
            if domain not in declared:
                yield f"{host}: domain {domain} is still defined"


def _thrown_away(store: Store) -> set[str]:
    """What was begun and given up waits for the sweep, marked so; with its record, if it has one."""
    marks = {name for name in store.files if ".trash-" in name}
    volumes = {name.partition(".trash-")[0] for name in marks}
    beside = {name for volume in volumes for name in (*names.import_names(volume), names.record_name(volume))}
    return marks | volumes | beside


def _shall_run(spec: Object) -> bool:
    if spec["runPolicy"] == "Halted":
        return False
    action = (spec.get("powerRequest") or {}).get("action")
    if spec["runPolicy"] == "Manual":
        return bool(action == "Start")
    return action not in ("ForceOff", "Shutdown")


def _own_disks(vm: str, spec: Object) -> Iterator[tuple[str, Object]]:
    for drive in spec.get("disks") or []:
        if "template" in drive:
            yield f"{vm}-{drive['name']}", drive["template"]


def _disks_of(scene: Scene, key: Key, spec: Object, kind: DiskType) -> Iterator[Object]:
    for drive in spec.get("disks") or []:
        if drive.get("type", DiskType.DISK) != kind or not ("diskRef" in drive or "template" in drive):
            continue
        name = drive["diskRef"]["name"] if "diskRef" in drive else f"{key.name}-{drive['name']}"
        found = scene.server.get("Disk", name, key.namespace)
        if found is not None:
            yield found


def _reason(obj: Object) -> str:
    conditions = (obj.get("status") or {}).get("conditions") or []
    ready = next((c for c in conditions if c["type"] == "Ready"), None)
    return "no condition" if ready is None else f"{ready['status']} {ready['reason']}: {ready['message']}"


def _defined(machine: Machine) -> list[str]:
    return sorted(domain.name for domain in machine.daemon.domains.values())
