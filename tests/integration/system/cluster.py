"""What a test says to the cluster, and how it waits for an answer."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import libvirt

from lab import Lab
from lab.errors import CommandFailedError
from lab.hosts import Host
from tools.deployment import Deployment

PATIENCE = 180.0
"""Seconds that anything may take on a slow and busy machine."""
KINDS = ("virtualmachines.hostler.dev", "disks.hostler.dev")
API = "hostler.dev/v1alpha1"

Object = dict[str, Any]


class Cluster:
    """One namespace of the cluster, and the hosts behind it."""

    def __init__(self, deployment: Deployment, namespace: str) -> None:
        self.deployment = deployment
        self.lab: Lab = deployment.lab
        self.namespace = namespace

    # Objects

    def apply(self, *objects: Object) -> None:
        """Server-side apply, as a user does it; a namespaced object without namespace goes into the test's own."""
        items = [self._placed(obj) for obj in objects]
        manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
        self.lab.kubectl("apply", "--server-side", "--force-conflicts", "-f-", input=manifest)

    def refused(self, obj: Object) -> str:
        """What the API server says when it refuses the object. AssertionError when it does not."""
        try:
            self.apply(obj)
        except CommandFailedError as error:
            return str(error)
        raise AssertionError(f"accepted: {obj}")

    def get(self, kind: str, name: str) -> Object | None:
        """The object, or None."""
        found = self.lab.kubectl("get", kind, name, *self._scope(kind), "--ignore-not-found", "-ojson")
        return json.loads(found) if found.strip() else None

    def patch(self, kind: str, name: str, spec: Mapping[str, Any]) -> None:
        """Merge patch of the spec."""
        self.lab.kubectl("patch", kind, name, *self._scope(kind), "--type=merge", f"-p={json.dumps({'spec': spec})}")

    def delete(self, kind: str, name: str, *options: str) -> None:
        """Delete without waiting."""
        self.lab.kubectl("delete", kind, name, *self._scope(kind), "--wait=false", "--ignore-not-found", *options)

    def wait(self, what: str, probe: Callable[[], Any], timeout: float = PATIENCE) -> Any:
        """Poll until the probe gives something true; AssertionError with the objects and the log otherwise."""
        deadline = time.monotonic() + timeout
        while True:
            if found := probe():
                return found
            if time.monotonic() > deadline:
                log = "\n".join(self.deployment.log.read_text().splitlines()[-40:])
                raise AssertionError(f"not within {timeout:.0f} s: {what}\n{self.describe()}\n{log}")
            time.sleep(0.3)

    def wait_phase(self, kind: str, name: str, phase: str, timeout: float = PATIENCE) -> Object:
        """Wait for status.phase, with the status of the newest generation."""
        what = f"{kind} {name} is {phase}"
        found: Object = self.wait(what, lambda: _in_phase(self.get(kind, name), phase), timeout)
        return found

    def wait_condition(
        self, kind: str, name: str, type_: str, status: str, reason: str | None = None, timeout: float = PATIENCE
    ) -> Object:
        """Wait for a condition of the newest generation; returns the condition."""
        found: Object = self.wait(
            f"{kind} {name} has {type_}={status} {reason or ''}",
            lambda: _has_condition(self.get(kind, name), type_, status, reason),
            timeout,
        )
        return found

    def wait_gone(self, kind: str, name: str, timeout: float = PATIENCE) -> None:
        """Wait until there is no such object."""
        self.wait(f"{kind} {name} is gone", lambda: self.get(kind, name) is None, timeout)

    def running(self, name: str, timeout: float = PATIENCE) -> Object:
        """Wait until the VM is Running and Ready."""
        self.wait_phase("hvm", name, "Running", timeout)
        self.wait_condition("hvm", name, "Ready", "True", timeout=timeout)
        found = self.get("hvm", name)
        assert found is not None
        return found

    def describe(self) -> str:
        """The test's objects and what was last said about them."""
        objects = self.lab.kubectl("get", ",".join(KINDS), "-n", self.namespace, "-owide")
        return objects + self.lab.kubectl("get", "hosts,storagedomains,hostpools", "-owide")

    def events(self, name: str) -> list[str]:
        """Reasons of the Kubernetes Events about an object of the namespace."""
        found = self.lab.kubectl("get", "events", "-n", self.namespace, "-ojson")
        return [e["reason"] for e in json.loads(found)["items"] if e["involvedObject"]["name"] == name]

    # The namespace and the infrastructure

    def create_namespace(self) -> None:
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}})

    def delete_namespace(self) -> None:
        """Delete it with everything in it, and wait until it is gone."""
        for kind in KINDS:
            self.lab.kubectl("delete", kind, "--all", "-n", self.namespace, "--wait=false")
        # A namespace that is empty goes at once; one that is not is looked at again only seconds later.
        everything = ("get", ",".join(KINDS), "-n", self.namespace, "-oname")
        self.wait(f"{self.namespace} is empty", lambda: not self.lab.kubectl(*everything), timeout=300)
        self.lab.kubectl("delete", "namespace", self.namespace, "--wait=false")
        self.wait_gone("namespace", self.namespace, timeout=300)

    def declare_infrastructure(self) -> None:
        """A pool of all the lab's hosts, shared and local storage, a network; waits until all of it is Ready."""
        hosts = [host(h.name, f"qemu+tls://{h.name}.lab/system") for h in self.lab.hosts]
        self.apply(pool("default"), *hosts, network("lan"), storage("shared", "/srv/shared", "Shared"))
        self.apply(storage("local", "/srv/local", "HostLocal"))
        self.whole()

    def whole(self, timeout: float = PATIENCE) -> None:
        """Wait until every host is Up and all storage is reached."""
        for h in self.lab.hosts:
            self.wait_phase("host", h.name, "Up", timeout)
        for name in ("shared", "local"):
            self.wait_phase("storagedomain", name, "Active", timeout)
        self.wait_condition("networks.hostler.dev", "lan", "Ready", "True", timeout=timeout)

    def mend(self) -> None:
        """Put right what a test has done to hosts and operator."""
        for h in self.lab.hosts:
            if not h.powered():
                h.power_on()
            h.heal()
            h.heal(guests=True)
            h.slow(0)
            h.resume()
            h.daemon_start()
            h.mount_shared()
        self.deployment.start()
        self.whole()

    # Hosts

    def domains(self, name: str) -> dict[str, str]:
        """Host name → state word, for every host that has a domain of this VM (asked directly, not through Hostler)."""
        found = {}
        for h in self.lab.hosts:
            if h.alive():
                with connection(h) as conn:
                    for domain in conn.listAllDomains():
                        if domain.name() == f"{self.namespace}.{name}":
                            found[h.name] = "running" if domain.isActive() else "off"
        return found

    def domain_xml(self, name: str) -> str:
        """The running domain's document."""
        for h in self.lab.hosts:
            with connection(h) as conn:
                for domain in conn.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
                    if domain.name() == f"{self.namespace}.{name}":
                        return str(domain.XMLDesc())
        raise AssertionError(f"{name} runs nowhere")

    def files(self) -> list[str]:
        """Files of this namespace on the shared storage."""
        return sorted(p.name for p in Path(self.lab.shared).iterdir() if p.name.startswith(f"{self.namespace}."))

    def _placed(self, obj: Object) -> Object:
        if obj["kind"] in ("VirtualMachine", "Disk", "Secret") and "namespace" not in obj["metadata"]:
            return {**obj, "metadata": {**obj["metadata"], "namespace": self.namespace}}
        return obj

    def _scope(self, kind: str) -> tuple[str, ...]:
        cluster_wide = ("host", "hostpool", "storagedomain", "networks.hostler.dev", "namespace")
        return () if kind in cluster_wide else ("-n", self.namespace)


class connection:  # noqa: N801 - used as a function
    """A libvirt connection to a host by its own socket, without Hostler and without the network."""

    def __init__(self, host: Host) -> None:
        self._uri = host.uri_unix

    def __enter__(self) -> libvirt.virConnect:
        self._connection = libvirt.open(self._uri)
        return self._connection

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def _in_phase(obj: Object | None, phase: str) -> Object | None:
    if obj is None:
        return None
    status = obj.get("status", {})
    current = status.get("observedGeneration") == obj["metadata"]["generation"]
    return obj if current and status.get("phase") == phase else None


def _has_condition(obj: Object | None, type_: str, status: str, reason: str | None) -> Object | None:
    if obj is None:
        return None
    for condition in obj.get("status", {}).get("conditions", []):
        if condition["type"] == type_ and condition["status"] == status and reason in (None, condition["reason"]):
            return condition if condition.get("observedGeneration") == obj["metadata"]["generation"] else None
    return None


# Builders ------------------------------------------------------------------------------------------------------------


def pool(name: str, **spec: Any) -> Object:
    """A HostPool that notices a lost host quickly."""
    spec = {"fencing": {"failedAfterSeconds": 12}, "monitoring": {"heartbeatSeconds": 2}, **spec}
    return {"apiVersion": API, "kind": "HostPool", "metadata": {"name": name}, "spec": spec}


def host(name: str, uri: str, **spec: Any) -> Object:
    """A Host of the pool default, with the lab's TLS identity."""
    spec = {"pool": "default", "uri": uri, "credentialsSecret": "lab-tls", **spec}
    return {"apiVersion": API, "kind": "Host", "metadata": {"name": name}, "spec": spec}


def storage(name: str, path: str, scope: str, **spec: Any) -> Object:
    """A directory StorageDomain of the pool default."""
    spec = {"type": "directory", "directory": {"path": path, "scope": scope}, "pools": ["default"], **spec}
    return {"apiVersion": API, "kind": "StorageDomain", "metadata": {"name": name}, "spec": spec}


def network(name: str, bridge: str = "lan") -> Object:
    """A bridge Network of the pool default."""
    spec = {"type": "bridge", "bridge": {"name": bridge}, "pools": ["default"]}
    return {"apiVersion": API, "kind": "Network", "metadata": {"name": name}, "spec": spec}


def disk(name: str, size: str = "16Mi", domain: str = "shared", **spec: Any) -> Object:
    """A Disk; blank and raw unless the spec says otherwise."""
    spec = {"size": size, "storageDomain": domain, "format": "raw", **spec}
    return {"apiVersion": API, "kind": "Disk", "metadata": {"name": name}, "spec": spec}


def firmware_vm(name: str, *drives: Object, **spec: Any) -> Object:
    """A VM that only runs its firmware: cheap, and enough where no guest is needed. Its guest hears no shutdown."""
    devices = {"guestAgent": "Disabled", "balloon": "Disabled", "rng": "Disabled"}
    base = {
        "runPolicy": "Always",
        "pool": "default",
        "memory": {"size": "32Mi"},
        "devices": devices,
        "lifecycle": {"shutdownTimeoutSeconds": 1},
        "disks": list(drives)
        or [{"name": "root", "template": {"size": "16Mi", "storageDomain": "shared", "format": "raw"}}],
    }
    return {"apiVersion": API, "kind": "VirtualMachine", "metadata": {"name": name}, "spec": {**base, **spec}}


def guest_vm(lab: Lab, name: str, number: int, **spec: Any) -> Object:
    """A VM that boots the lab's guest image, with a data disk and the address 10.88.0.<number>."""
    checksum = (lab.state.images / "guest.qcow2.sha256").read_text().split()[0]
    source = {"http": {"url": f"{lab.images_url}/guest.qcow2", "checksum": f"sha256:{checksum}"}}
    networking = f'version: 2\nethernets:\n  lan:\n    match: {{name: "e*"}}\n    addresses: [10.88.0.{number}/24]\n'
    base = {
        "runPolicy": "Always",
        "pool": "default",
        "memory": {"size": "128Mi"},
        "disks": [
            {"name": "root", "template": {"size": "64Mi", "storageDomain": "shared", "source": source}},
            {"name": "data", "template": {"size": "16Mi", "storageDomain": "shared", "format": "raw"}},
        ],
        "nics": [{"name": "lan", "network": "lan"}],
        "cloudInit": {"userData": "#cloud-config\n", "networkData": networking},
        "lifecycle": {"shutdownTimeoutSeconds": 60},
    }
    return {"apiVersion": API, "kind": "VirtualMachine", "metadata": {"name": name}, "spec": {**base, **spec}}
