"""Bad input that the API server refuses: what the user reads names the field and says what to do."""

from __future__ import annotations

import json
from typing import Any

import pytest
from kubernetes import client

from lab.errors import CommandFailedError
from tests.integration.api.conftest import Api
from tests.unit.crds.rule_cases import DROP, ZEROS, build

MIB = 2**20
TOO_LONG = "n" * 254
LIST = "spec.disks[0].template.size"

BAD: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "an unknown field": ("VirtualMachine", {"spec.memroy": {"size": "1Gi"}}, "spec.memroy", "unknown field"),
    "an unknown field within": ("Disk", {"spec.source.http.sha": "x"}, "spec.source.http.sha", "unknown field"),
    "a missing field": ("VirtualMachine", {"spec.memory.size": DROP}, "spec.memory.size", "Required value"),
    "a wrong word": ("VirtualMachine", {"spec.runPolicy": "Allways"}, "spec.runPolicy", '"Always"'),
    "a size of nothing": ("Disk", {"spec.size": 0}, "spec.size", "above zero"),
    "a negative size": ("VirtualMachine", {LIST: "-1Gi"}, LIST, "above zero"),
    "a size in words": ("VirtualMachine", {"spec.memory.size": "2 GB"}, "spec.memory.size", "for example 20Gi"),
    "a size beyond every host": ("Disk", {"spec.size": "16Ei"}, "spec.size", "should match"),
    "bytes beyond every host": ("Disk", {"spec.size": 2**62}, "spec.size", "less than or equal to"),
    "memory of no use": ("VirtualMachine", {"spec.memory.size": 512}, "spec.memory.size", "at least 1Mi"),
    "too many processors": ("VirtualMachine", {"spec.cpu": {"cores": 200, "sockets": 2}}, "spec.cpu", "more than 255"),
    "markup for a CPU": ("VirtualMachine", {"spec.cpu.model": "</cpu>"}, "spec.cpu.model", "EPYC-Rome"),
    "a control character": ("VirtualMachine", {"spec.cpu.model": "EPYC\x01"}, "spec.cpu.model", "EPYC-Rome"),
    "two cards of one name": (
        "VirtualMachine",
        {"spec.nics": [{"name": "lan", "network": n} for n in ("lan", "dmz")]},
        "spec.nics[1]",
        "Duplicate value",
    ),
    "a multicast address": ("VirtualMachine", {"spec.nics[0].mac": "01:00:5e:00:00:01"}, "spec.nics[0].mac", "unicast"),
    "a name of 254 characters": ("Disk", {"metadata.name": TOO_LONG}, "metadata.name", "no more than 253"),
    "a reference of 254 characters": (
        "VirtualMachine",
        {"spec.disks[1].diskRef.name": TOO_LONG},
        "spec.disks[1].diskRef.name",
        "253",
    ),
    "no room for the disks' names": (
        "VirtualMachine", {"metadata.name": "n" * 253}, "spec.disks", "shorten the drive's name"
    ),
    "dots that lead out of the domain": (
        "Disk",
        {"spec.source": {"file": {"path": "../etc/passwd", "checksum": ZEROS}}},
        "spec.source.file.path",
        "without '..'",
    ),
    "dots in a volume's path": (
        "Disk", {"spec.source": {"existing": {"path": "/srv/vms/../x"}}}, "spec.source.existing.path", "without '..'"
    ),
    "dots in a domain's path": (
        "StorageDomain", {"spec.directory.path": "/srv/vms/../../etc"}, "spec.directory.path", "absolute path"
    ),
    "a file URL": (
        "Disk",
        {"spec.source": {"http": {"url": "file:///etc/passwd", "checksum": ZEROS}}},
        "spec.source.http.url",
        "http:// or https://",
    ),
    "no checksum": ("Disk", {"spec.source.http.checksum": "md5:00"}, "spec.source.http.checksum", "sha256:"),
    "user-data of two megabytes": (
        "VirtualMachine",
        {"spec.cloudInit": {"userData": "#" * (2 * MIB)}},
        "spec.cloudInit.userData",
        "userDataSecretRef",
    ),
    "a password in a URI": ("Host", {"spec.uri": "qemu+tls://me:secret@kvm1/system"}, "spec.uri", "no password in it"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_refused(api: Api, what: str) -> None:
    kind, changes, field, advice = BAD[what]
    with pytest.raises(client.ApiException) as refusal:
        api.create(build(kind, "bad", changes))
    said = json.loads(str(refusal.value.body))["message"]
    assert field in said
    assert advice in said


def test_a_secret_of_two_megabytes(api: Api) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "large", "namespace": "default"}}
    with pytest.raises(CommandFailedError, match="data: Too long: may not be more than 1048576 bytes"):
        api.lab.kubectl(
            "apply", "--server-side", "-f-", input=json.dumps({**secret, "stringData": {"userData": "#" * (2 * MIB)}})
        )


def test_names_of_253_characters_are_names(api: Api) -> None:
    api.create(build("Disk", "n" * 253, {}))
    api.create(build("VirtualMachine", "n" * 253, {"spec.disks[0]": {"name": "root", "diskRef": {"name": "m" * 253}}}))
