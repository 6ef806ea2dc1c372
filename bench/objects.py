"""What benchmarks say to the API server, hear from it, and read of processes."""

from __future__ import annotations

import datetime
import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from kubernetes import client, config, watch
from urllib3.exceptions import HTTPError

from lab import Lab
from lab.controlplane.audit import Write

NAMESPACE = "bench"
AT_ONCE = 16
"""Requests at once."""
_GROUP, _VERSION, _PLURAL = "hostler.dev", "v1alpha1", "virtualmachines"


def create(manifests: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Create VMs, many at once; name → when it was sent, monotonic."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(pool.map(_create, manifests))


def delete(names: Iterable[str]) -> None:
    """Ask for the deletion of VMs, many at once."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(_delete, names))


def _create(manifest: dict[str, Any]) -> tuple[str, float]:
    begun = time.monotonic()
    _api().create_namespaced_custom_object(_GROUP, _VERSION, NAMESPACE, _PLURAL, manifest)
    return manifest["metadata"]["name"], begun


def _delete(name: str) -> None:
    _api().delete_namespaced_custom_object(_GROUP, _VERSION, NAMESPACE, _PLURAL, name)


_local = threading.local()


def _api() -> Any:
    """A client of this thread."""
    if not hasattr(_local, "api"):
        _local.api = client.CustomObjectsApi(config.new_client_from_config())
    return _local.api


class Phases:
    """When each VM was first seen Running, and gone again, by a watch."""

    def __init__(self) -> None:
        self.running: dict[str, float] = {}
        self.gone: dict[str, float] = {}
        self._ended = False
        self._watch = watch.Watch()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Phases:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._watch.stop()

    def wait(self, holds: Callable[[], bool], seconds: float) -> None:
        """Raises RuntimeError if it does not come true in time."""
        with self._changed:
            if not self._changed.wait_for(holds, seconds):
                raise RuntimeError(f"not within {seconds:g} s: {len(self.running)} run, {len(self.gone)} are gone")

    def _follow(self) -> None:
        """List, then watch from there; again whenever the server ends a watch, as it does with one that is too slow."""
        listing = _api().list_namespaced_custom_object
        while not self._ended:
            try:
                found = listing(_GROUP, _VERSION, NAMESPACE, _PLURAL)
                self._take_all(found["items"])
                version = found["metadata"]["resourceVersion"]
                args = (_GROUP, _VERSION, NAMESPACE, _PLURAL)
                for event in self._watch.stream(listing, *args, resource_version=version, timeout_seconds=900):
                    self._take(event["type"], event["object"])
            except (HTTPError, client.ApiException):
                time.sleep(0.1)

    def _take_all(self, vms: list[dict[str, Any]]) -> None:
        there = {vm["metadata"]["name"] for vm in vms}
        for vm in vms:
            self._take("ADDED", vm)
        for name in self.running.keys() - there:
            self._take("DELETED", {"metadata": {"name": name}})

    def _take(self, type_: str, vm: dict[str, Any]) -> None:
        name, phase, now = vm["metadata"]["name"], (vm.get("status") or {}).get("phase"), time.monotonic()
        with self._changed:
            if type_ == "DELETED":
                self.gone.setdefault(name, now)
            elif phase == "Running":
                self.running.setdefault(name, now)
            self._changed.notify_all()


def clear(lab: Lab) -> None:
    """Delete all hosts and what belongs to them; the operator must run."""
    for kind in ("hosts", "storagedomains", "networks.hostler.dev", "hostpools"):
        lab.kubectl("delete", kind, "--all", "--timeout=120s", timeout=150)


def writes(lab: Lab, since: datetime.datetime, names: list[str]) -> float:
    """The controller's writes of the VMs' objects, per VM; Leases and Events are none."""
    time.sleep(1.0)  # the audit log is written in batches
    wanted = set(names)
    return sum(write.name in wanted for write in writes_of_controller(lab, since)) / len(names)


def writes_of_controller(lab: Lab, since: datetime.datetime) -> list[Write]:
    """The controller's writes of objects in the namespace of the benchmarks; Leases and Events are none."""
    return [write for write in lab.writes(since) if _counts(write)]


def _counts(write: Write) -> bool:
    ours = write.user.endswith(":hostler") and write.namespace == NAMESPACE
    return ours and write.resource.partition("/")[0].endswith(".hostler.dev")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process up to now."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """Memory of a process now."""
    line = next(row for row in Path(f"/proc/{pid}/status").read_text().splitlines() if row.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def now() -> datetime.datetime:
    """As the audit log has it."""
    return datetime.datetime.now(datetime.UTC)
