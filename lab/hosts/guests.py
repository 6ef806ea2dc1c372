"""Guests of firmware only: they cost 16 MiB, run no system, and hold their disk open as any guest does.

For trying out the lab itself. The image format is qcow2 for `*.qcow2`, else raw.
"""

from __future__ import annotations

from pathlib import Path

from lab.hosts.host import Host

_DOMAIN = """<domain type="qemu">
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit="MiB">16</memory>
  <vcpu>1</vcpu>
  <os><type arch="x86_64" machine="pc">hvm</type></os>
  <devices>
    <disk type="file" device="disk">
      <driver name="qemu" type="{format}" cache="none"/>
      <source file="{image}"/>
      <target dev="vda" bus="virtio"/>
    </disk>
    <interface type="bridge"><source bridge="lan"/><model type="virtio"/></interface>
    <serial type="pty"/>
  </devices>
</domain>
"""


def start_guest(host: Host, name: str, uuid: str, image: str) -> None:
    """Start a transient domain on `image`, a path as the host sees it. Raises CommandFailedError if libvirt refuses."""
    kind = "qcow2" if image.endswith(".qcow2") else "raw"
    document = host.layout.path("run") / f"{name}.xml"
    document.write_text(_DOMAIN.format(name=name, uuid=uuid, image=image, format=kind))
    host.virsh("create", str(Path("/run", document.name)))


def stop_guest(host: Host, name: str) -> None:
    """End the domain of this name, at once. Raises CommandFailedError if there is none."""
    host.virsh("destroy", name)
