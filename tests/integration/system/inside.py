"""What is true inside a guest and in its domain, asked without Hostler: the guest agent, and libvirt's own document."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import libvirt
import libvirt_qemu
from lxml import etree

from tests.integration.system.cluster import Cluster, connection

# What an agent that is not there yet makes libvirt print is no news.
libvirt.registerErrorHandler(lambda *_: None, None)

HOSTLER = "{https://hostler.dev/domain/v1}"


class Guest:
    """The running guest of a VM, wherever it runs."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name

    def document(self) -> etree._Element:
        """The running domain's document."""
        return etree.fromstring(self.cluster.domain_xml(self.name))

    def identity(self) -> dict[str, str]:
        """Who the domain says it belongs to."""
        found = self.document().find(f"metadata/{HOSTLER}vm")
        assert found is not None
        return {str(k): str(v) for k, v in found.attrib.items()}

    def addresses(self) -> dict[str, str]:
        """Alias → PCI or drive address of every device that we named."""
        found = {}
        for device in self.document().find("devices"):
            alias, address = device.find("alias"), device.find("address")
            if alias is not None and address is not None and alias.get("name", "").startswith("ua-"):
                found[alias.get("name")] = " ".join(f"{k}={v}" for k, v in sorted(address.attrib.items()))
        return found

    def macs(self) -> list[str]:
        """MAC addresses of the network cards, in order."""
        return [str(mac.get("address")) for mac in self.document().findall("devices/interface/mac")]

    def ready(self, timeout: float = 120.0) -> None:
        """Wait until the agent answers."""
        self.cluster.wait(f"the agent of {self.name}", self._answers, timeout)

    def run(self, command: str) -> str:
        """What a shell command prints in the guest."""
        started = self._agent("guest-exec", path="/bin/sh", arg=["-c", command], **{"capture-output": True})
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            status = self._agent("guest-exec-status", pid=started["pid"])
            if status["exited"]:
                return base64.b64decode(status.get("out-data", "")).decode()
            time.sleep(0.2)
        raise AssertionError(f"{command!r} does not end in {self.name}")

    def wait(self, what: str, command: str, expected: str, timeout: float = 60.0) -> None:
        """Wait until a command prints what is expected."""
        self.cluster.wait(what, lambda: self.run(command).strip() == expected, timeout)

    def _answers(self) -> bool:
        try:
            self._agent("guest-ping")
        except (libvirt.libvirtError, AssertionError):
            return False
        return True

    def _agent(self, call: str, **arguments: Any) -> Any:
        message = json.dumps({"execute": call, "arguments": arguments} if arguments else {"execute": call})
        for host in self.cluster.lab.hosts:
            with connection(host) as conn:
                for domain in conn.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
                    if domain.name() == f"{self.cluster.namespace}.{self.name}":
                        return json.loads(libvirt_qemu.qemuAgentCommand(domain, message, 10, 0))["return"]
        raise AssertionError(f"{self.name} runs nowhere")
