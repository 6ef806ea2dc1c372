"""The lab's guest on plain QEMU under emulation: no libvirt, no network but QEMU's own."""

import base64
import io
import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pycdlib
import pytest

from lab.guest import VIRTUAL_SIZE, GuestImage, build

Result = TypeVar("Result")

BOOT_LIMIT = 60.0
OVMF = Path("/usr/share/OVMF")
META_DATA = "instance-id: i-0001\nlocal-hostname: web-1\n"
MAC = "52:54:00:12:34:56"
NETWORK = f"""version: 2
ethernets:
  id0:
    match:
      macaddress: '{MAC.upper()}'
    addresses: [10.88.0.21/24]
    gateway4: 10.88.0.1
"""


class Connection:
    """JSON lines over a UNIX socket, as QMP and the guest agent speak them."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(30)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("rw", encoding="utf-8")

    def receive(self) -> dict:
        return json.loads(self._lines.readline())

    def call(self, command: str, **arguments: object) -> object:
        self._lines.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._lines.flush()
        while True:
            answer = self.receive()
            if "error" in answer:
                raise AssertionError(f"{command}: {answer['error']}")
            if "return" in answer:
                return answer["return"]

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


class Machine:
    """One QEMU; what it prints on the serial port is in ``console``."""

    def __init__(self, folder: Path, image: GuestImage, *options: str, memory: int = 96) -> None:
        folder.mkdir(exist_ok=True)
        self._console = folder / "console.log"
        overlay = folder / "boot.qcow2"
        if not overlay.exists():
            backing = ["-F", "qcow2", "-b", str(image.path)]
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, str(overlay)], check=True)
        for name in ("qmp", "agent"):
            (folder / name).unlink(missing_ok=True)
        base = "-accel tcg -machine q35 -display none -vga none -nodefaults -device virtio-serial -device virtio-scsi"
        command = ["qemu-system-x86_64", *base.split(), "-m", str(memory)]
        command += [
            "-drive",
            f"file={overlay},if=none,id=boot",
            "-device",
            "virtio-blk,drive=boot,bootindex=1",
            *options,
        ]
        command += ["-serial", f"file:{self._console}", "-qmp", f"unix:{folder}/qmp,server=on,wait=off"]
        command += ["-chardev", f"socket,id=agent,path={folder}/agent,server=on,wait=off"]
        command += ["-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"]
        self.folder = folder
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        wait_for((folder / "agent").exists, "QEMU did not make its sockets")
        self.qmp = Connection(folder / "qmp")
        self.qmp.receive()
        self.qmp.call("qmp_capabilities")
        self.agent = Connection(folder / "agent")

    @property
    def console(self) -> str:
        return self._console.read_text(errors="replace") if self._console.exists() else ""

    def wait_up(self) -> re.Match[str]:
        """The "up" line: its groups are name, address and the seconds since the kernel started."""
        pattern = re.compile(r"^hostler-guest up (\S+) (\S+) (\d+\.\d+)\r?$", re.MULTILINE)
        return wait_for(lambda: pattern.search(self.console), f"no guest came up; {self._console}", BOOT_LIMIT)

    def run(self, script: str) -> str:
        """What a shell script printed inside the guest."""
        arguments = {"path": "/bin/sh", "arg": ["-c", script], "capture-output": True}
        pid = self.agent.call("guest-exec", **arguments)["pid"]

        def ended() -> dict | None:
            status = self.agent.call("guest-exec-status", pid=pid)
            return status if status["exited"] else None

        status = wait_for(ended, f"{script} did not end")
        assert status["exitcode"] == 0, status
        return base64.b64decode(status.get("out-data", "")).decode().strip()

    def wait_end(self, limit: float) -> None:
        self.process.wait(limit)

    def close(self) -> None:
        self.qmp.close()
        self.agent.close()
        self.process.kill()
        self.process.communicate()


def wait_for(probe: Callable[[], Result], message: str, limit: float = 15.0) -> Result:
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        found = probe()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(message)


def iso_seed(path: Path, **files: str) -> Path:
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident="cidata")
    for number, (name, text) in enumerate(files.items()):
        real, content = name.replace("_", "-"), text.encode()
        iso.add_fp(io.BytesIO(content), len(content), f"/F{number}.;1", rr_name=real, joliet_path=f"/{real}")
    iso.write(str(path))
    iso.close()
    return path


def fat_seed(path: Path, **files: str) -> Path:
    path.write_bytes(bytes(2**20))
    mkfs = shutil.which("mkfs.vfat") or "/usr/sbin/mkfs.vfat"
    subprocess.run([mkfs, "-n", "CIDATA", str(path)], check=True, capture_output=True)
    for name, text in files.items():
        target = f"::/{name.replace('_', '-')}"
        subprocess.run(["mcopy", "-i", str(path), "-", target], input=text.encode(), check=True)
    return path


def blank(path: Path) -> Path:
    if not path.exists():
        path.write_bytes(bytes(2**20))
    return path


def disk(path: Path, node: str, device: str = "virtio-blk") -> list[str]:
    return ["-drive", f"file={path},format=raw,if=none,id={node}", "-device", f"{device},drive={node}"]


def sequence(path: Path) -> int:
    return int(path.read_bytes()[:16])


@pytest.fixture(scope="module")
def image() -> GuestImage:
    return build()


@pytest.fixture(scope="module")
def web(image: GuestImage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A guest by BIOS, seed on a CD-ROM, a blank second disk, room for hot-plug."""
    folder = tmp_path_factory.mktemp("web")
    seed = iso_seed(
        folder / "seed.iso",
        meta_data=META_DATA,
        network_config=NETWORK,
        user_data="#cloud-config\nruncmd:\n  - echo first > /run/first\n  - 'echo \"two: words\" > /run/second'\n",
    )
    options = disk(blank(folder / "data"), "data")
    options += ["-drive", f"file={seed},format=raw,if=none,id=seed,media=cdrom", "-device", "scsi-cd,drive=seed"]
    options += ["-netdev", "user,id=lan,restrict=on", "-device", f"virtio-net,netdev=lan,mac={MAC}"]
    for slot in ("one", "two"):
        options += ["-device", f"pcie-root-port,id={slot},chassis={len(options)}"]
    options += ["-smp", "2"]
    machine = Machine(folder, image, *options)
    yield machine
    machine.close()


def test_the_image_is_small_and_cached(image: GuestImage) -> None:
    assert image.size < 64 * 2**20
    information = json.loads(
        subprocess.run(["qemu-img", "info", "--output=json", str(image.path)], capture_output=True, check=True).stdout
    )
    assert information["virtual-size"] == VIRTUAL_SIZE
    said: list[str] = []
    began = time.monotonic()
    assert build(progress=said.append) == image
    assert time.monotonic() - began < 0.2
    assert said == []


def test_boots_by_bios_with_its_seed(web: Machine) -> None:
    name, address, _ = web.wait_up().groups()
    assert (name, address) == ("web-1", "10.88.0.21")
    assert web.run("cat /run/guest/instance-id") == "i-0001"
    assert web.run("ip route").startswith("default via 10.88.0.1 dev eth0")
    wait_for(lambda: "tick 2" in web.console, "no ticks")


def test_user_data_runs(web: Machine) -> None:
    web.wait_up()
    wait_for(
        lambda: web.run("cat /run/first /run/second 2>/dev/null || :") == "first\ntwo: words", "runcmd did not run"
    )


def test_the_agent_tells_what_the_guest_is(web: Machine) -> None:
    web.wait_up()
    assert web.agent.call("guest-get-host-name") == {"host-name": "web-1"}
    assert web.agent.call("guest-get-osinfo")["id"] == "labguest"
    interfaces = {one["name"]: one for one in web.agent.call("guest-network-get-interfaces")}
    assert interfaces["eth0"]["hardware-address"] == MAC
    addresses = [one["ip-address"] for one in interfaces["eth0"]["ip-addresses"]]
    assert "10.88.0.21" in addresses


def test_the_inside_shows_processors_memory_and_the_cd(web: Machine) -> None:
    web.wait_up()
    assert web.run("nproc") == "2"
    assert 50_000 < int(web.run("awk '/MemTotal/ {print $2}' /proc/meminfo")) < 96 * 1024
    web.run("mkdir -p /cd && mount -r -t iso9660 /dev/sr0 /cd")
    assert web.run("cat /cd/meta-data; umount /cd") == META_DATA.strip()


def test_disks_and_interfaces_can_be_plugged_in(web: Machine) -> None:
    web.wait_up()
    later = blank(web.folder / "later")
    web.qmp.call(
        "blockdev-add", **{"driver": "raw", "node-name": "later", "file": {"driver": "file", "filename": str(later)}}
    )
    web.qmp.call("device_add", driver="virtio-blk-pci", drive="later", bus="one", id="disk2")
    wait_for(lambda: web.run("cat /sys/block/vdc/size 2>/dev/null || :") == str(2**20 // 512), "no new disk")
    web.qmp.call("netdev_add", type="user", id="lan2", restrict=True)
    web.qmp.call("device_add", driver="virtio-net-pci", netdev="lan2", bus="two", id="nic2", mac="52:54:00:12:34:57")
    wait_for(lambda: "LOWER_UP" in web.run("ip -o link show eth1 2>/dev/null || :"), "no new interface")
    assert web.run("cat /sys/class/net/eth1/address") == "52:54:00:12:34:57"
    # A disk that came later is nobody's to write on.
    assert web.run("cat /run/guest/sequence-disk") == "/dev/vdb"
    assert not any(later.read_bytes())


def test_the_sequence_increases(web: Machine) -> None:
    web.wait_up()
    data = web.folder / "data"
    assert re.fullmatch(rb"[0-9]{16}", data.read_bytes()[:16])
    first = sequence(data)
    wait_for(lambda: sequence(data) >= first + 10, "the sequence stands still")
    assert not any(data.read_bytes()[16:])


def test_the_power_button_ends_it_and_the_sequence_goes_on(image: GuestImage, tmp_path: Path) -> None:
    """Also the seed as a FAT disk, DHCP without a network-config, a reboot, and user-data as a script."""
    seed = fat_seed(tmp_path / "seed", meta_data=META_DATA, user_data="#!/bin/sh\nhostname > /run/script\n")
    data = tmp_path / "data"
    data.write_bytes(b"0000000000000899" + bytes(2**20 - 16))
    options = ["-netdev", "user,id=lan", "-device", "virtio-net,netdev=lan", *disk(seed, "seed"), *disk(data, "data")]
    machine = Machine(tmp_path, image, *options, "-no-reboot")
    try:
        assert machine.wait_up()[1] == "web-1"
        wait_for(lambda: "10.0.2.15" in machine.run("ip address"), "no DHCP")
        wait_for(lambda: machine.run("cat /run/script 2>/dev/null || :") == "web-1", "the script did not run")
        assert machine.run("cat /run/guest/sequence-disk") == "/dev/vdc"
        wait_for(lambda: sequence(data) > 901, "the sequence does not go on")
        machine.qmp.call("system_powerdown")
        machine.wait_end(20)
    finally:
        machine.close()
    assert "hostler-guest down web-1 poweroff" in machine.console
    assert 901 < sequence(data) < 2000


def test_boots_by_uefi(image: GuestImage, tmp_path: Path) -> None:
    variables = tmp_path / "vars"
    shutil.copyfile(OVMF / "OVMF_VARS_4M.fd", variables)
    firmware = ["-drive", f"if=pflash,format=raw,readonly=on,file={OVMF}/OVMF_CODE_4M.fd"]
    firmware += ["-drive", f"if=pflash,format=raw,file={variables}", "-no-reboot"]
    seed = iso_seed(tmp_path / "seed.iso", meta_data=META_DATA)
    machine = Machine(tmp_path, image, *firmware, *disk(seed, "seed"), memory=256)
    try:
        assert machine.wait_up()[1] == "web-1"
        assert machine.run("ls -d /sys/firmware/efi") == "/sys/firmware/efi"
        machine.agent.call("guest-info")
        # guest-shutdown answers nothing when it succeeds, so the reboot is asked for by exec.
        machine.agent.call("guest-exec", path="/sbin/reboot")
        machine.wait_end(20)
    finally:
        machine.close()
    assert "hostler-guest down web-1 reboot" in machine.console
