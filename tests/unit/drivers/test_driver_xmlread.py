"""libvirt's documents and numbers in the contract's words."""

import libvirt
import pytest

from drivers.libvirt.facts import version
from drivers.libvirt.guest import has_address, read_guest
from drivers.libvirt.states import paused_reason, stop_event, stop_reason
from drivers.model import (
    CPUModel,
    DeviceObservation,
    DomainState,
    GuestFacts,
    GuestInterfaceFacts,
    Identity,
    JobKind,
    Mirror,
    StopReason,
    Volume,
    Work,
)
from drivers.xmlread import (
    aliases,
    clean_path,
    device_alias,
    pool_path,
    read_cpu,
    read_domain,
    read_volume,
    volume_name,
)

DOMAIN = """<domain type='kvm' id='3'>
  <name>shop.web</name>
  <metadata>
    <other:thing xmlns:other="https://example.org/other">x</other:thing>
    <hostler:vm xmlns:hostler="https://hostler.dev/domain/v1" installation="i-1" namespace="shop" name="web"
      uid="u-1" epoch="4">{sections}</hostler:vm>
  </metadata>
  <memory unit='KiB'>2097152</memory>
  <currentMemory unit='KiB'>1048576</currentMemory>
  <vcpu placement='static' current='2'>8</vcpu>
  <os><nvram template='/t.fd'>/srv/shared/web.nvram</nvram></os>
  <devices>
    <disk type='file' device='disk'>
      <source file='/srv/shared/web.qcow2' index='1'/>
      <backingStore type='file' index='2'><source file='/srv/shared/base.qcow2'/></backingStore>
      <target dev='vda' bus='virtio'/>
      <alias name='ua-disk-root'/>
      <address type='pci' domain='0x0000' bus='0x03' slot='0x00' function='0x0'/>
    </disk>
    <disk type='file' device='disk'>
      <source file='/srv/shared/ro.qcow2'/><target dev='sdb' bus='scsi'/><readonly/>
      <alias name='ua-disk-ro'/><address type='drive' controller='0' bus='0' target='0' unit='1'/>
    </disk>
    <disk type='file' device='cdrom'>
      <target dev='sda' bus='sata'/><readonly/><alias name='ua-cdrom'/>
    </disk>
    <interface type='bridge'>
      <mac address='52:54:00:00:00:01'/><source bridge='lan'/><target dev='vnet3'/>
      <alias name='ua-nic-lan'/><address type='pci' domain='0x0000' bus='0x01' slot='0x0a' function='0x1'/>
    </interface>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0' state='{agent}'/></channel>
    <channel type='spicevmc'><target type='virtio' name='com.redhat.spice.0' state='connected'/></channel>
    <memballoon model='virtio'/>
  </devices>
</domain>"""


def test_a_domain_is_read() -> None:
    plain = '<section name="cpu" sha="1"/><section name="ua-disk-root" sha="2"/>'
    facts = read_domain(DOMAIN.format(sections=plain, agent="connected"))
    assert facts.name == "shop.web"
    assert facts.identity == Identity("i-1", "shop", "web", "u-1", 4)
    assert facts.sections == (("cpu", "1"), ("ua-disk-root", "2"))
    assert (facts.cpus, facts.memory) == (2, 2**30)
    assert facts.agent_connected
    assert facts.images == ("/srv/shared/web.qcow2", "/srv/shared/web.nvram")
    assert facts.devices == (
        DeviceObservation(
            "ua-disk-root", "pci:0000:03:00.0", None, "vda", "/srv/shared/web.qcow2", ("/srv/shared/base.qcow2",)
        ),
        DeviceObservation("ua-disk-ro", "drive:0:0:0:1", None, "sdb", "/srv/shared/ro.qcow2"),
        DeviceObservation("ua-cdrom", None, None, "sda", None),
        DeviceObservation("ua-nic-lan", "pci:0000:01:0a.1", "52:54:00:00:00:01", "vnet3", None),
    )


def test_sections_are_read_in_their_namespace_and_without() -> None:
    prefixed = '<hostler:section name="cpu" sha="1"/><!-- a remark -->'
    facts = read_domain(DOMAIN.format(sections=prefixed, agent="disconnected"))
    assert facts.sections == (("cpu", "1"),)
    assert not facts.agent_connected


@pytest.mark.parametrize("spoil", ["epoch='x'", ""])
def test_a_stamp_that_is_none_of_ours_is_foreign(spoil: str) -> None:
    stamp = f"<vm xmlns='https://hostler.dev/domain/v1' installation='i' namespace='n' name='v' uid='u' {spoil}/>"
    facts = read_domain(f"<domain><name>x</name><metadata>{stamp}</metadata></domain>")
    assert facts.identity is None
    assert (facts.cpus, facts.memory, facts.devices, facts.images) == (1, 0, (), ())


LAYERS = """<domain><devices><disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/>
      <source file='/srv/s2.qcow2' index='3'/>
      <backingStore type='file' index='2'>
        <format type='qcow2'/><source file='/srv/s1.qcow2'/>
        <backingStore type='file' index='1'>
          <format type='raw'/><source file='/srv/base.raw'/>
          <backingStore/>
        </backingStore>
      </backingStore>
      {mirror}
      <target dev='vda' bus='virtio'/><alias name='ua-disk-root'/>
    </disk></devices></domain>"""
MIRROR = """<mirror type='file' job='{job}'{ready}><format type='raw'/><source file='/srv/to.raw' index='4'/>
      <backingStore type='file'><format type='raw'/><source file='/srv/below.raw'/></backingStore></mirror>"""


@pytest.mark.parametrize(
    ("mirror", "seen"),
    [
        ("", None),
        (MIRROR.format(job="copy", ready=""), Mirror("/srv/to.raw", JobKind.COPY, False)),
        (
            MIRROR.format(job="active-commit", ready=" ready='yes'"),
            Mirror("/srv/to.raw", JobKind.ACTIVE_COMMIT, True),
        ),
        (MIRROR.format(job="copy", ready=" ready='pivot'"), Mirror("/srv/to.raw", JobKind.COPY, True)),
    ],
)
def test_layers_and_mirror_of_a_drive_are_read(mirror: str, seen: Mirror | None) -> None:
    (drive,) = read_domain(LAYERS.format(mirror=mirror)).devices
    assert (drive.source, drive.backing) == ("/srv/s2.qcow2", ("/srv/s1.qcow2", "/srv/base.raw"))
    assert drive.mirror == seen
    below = ("/srv/s2.qcow2", "/srv/s1.qcow2", "/srv/base.raw")
    assert drive.opened == (below if seen is None else (*below, "/srv/to.raw"))


def test_a_job_domain_is_no_vm() -> None:
    stamp = "<hostler:job xmlns:hostler='https://hostler.dev/domain/v1' installation='i' operation='o'/>"
    facts = read_domain(f"<domain><name>x</name><metadata>{stamp}</metadata></domain>")
    assert (facts.identity, facts.work) == (None, Work("i", "o"))


def test_an_entity_is_not_resolved() -> None:
    bomb = '<!DOCTYPE domain [<!ENTITY x SYSTEM "file:///etc/passwd">]><domain><name>&x;</name></domain>'
    assert "root" not in read_domain(bomb).name


def test_a_volume_is_read_and_a_folder_is_none() -> None:
    document = """<volume type='{}'><name>v.qcow2</name><capacity unit='GiB'>2</capacity>
      <allocation unit='bytes'>7</allocation>
      <target><path>/srv/v.qcow2</path><format type='qcow2'/></target></volume>"""
    assert read_volume(document.format("file")) == Volume("v.qcow2", "/srv/v.qcow2", "qcow2", 2**31, 7)
    assert read_volume(document.format("dir")) is None
    layer = "<backingStore><path>/srv/base.raw</path><format type='raw'/></backingStore></volume>"
    overlay = read_volume(document.format("file").replace("</volume>", layer))
    assert overlay == Volume("v.qcow2", "/srv/v.qcow2", "qcow2", 2**31, 7, "/srv/base.raw", "raw")
    iso = read_volume(document.format("file").replace("type='qcow2'", "type='iso'"))
    assert iso is not None
    assert iso.format == "raw"


def test_paths_are_spelled_one_way_but_dots_stay() -> None:
    assert clean_path("/srv//shared/") == "/srv/shared"
    assert clean_path("/srv/.") == "/srv/."
    assert clean_path("/") == "/"
    assert clean_path("") == ""
    assert pool_path("<pool><target><path>/srv/x/</path></target></pool>") == "/srv/x"
    assert pool_path("<pool type='rbd'/>") == ""
    assert volume_name("<volume><name>a.raw</name></volume>") == "a.raw"


def test_aliases_are_found() -> None:
    assert set(aliases(DOMAIN.format(sections="", agent="x"))) == {
        "ua-disk-root", "ua-disk-ro", "ua-cdrom", "ua-nic-lan",
    }  # fmt: skip
    assert device_alias("<disk><alias name='ua-x'/></disk>") == "ua-x"
    assert device_alias("<disk/>") is None


def test_a_cpu_is_read() -> None:
    cpu = read_cpu(
        "<cpu><model>EPYC</model><feature policy='require' name='b'/><feature policy='disable' name='a'/>"
        "<feature policy='optional' name='c'/></cpu>"
    )
    assert cpu == CPUModel("EPYC", ("+b", "-a"))


def test_a_version_is_spelled_out() -> None:
    assert version(9_000_000) == "9.0.0"
    assert version(7_002_022) == "7.2.22"


@pytest.mark.parametrize(
    ("reason", "remembered", "expected"),
    [
        (libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN, None, StopReason.GUEST_SHUTDOWN),
        (libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED, None, StopReason.DESTROYED),
        (libvirt.VIR_DOMAIN_SHUTOFF_CRASHED, StopReason.DESTROYED, StopReason.CRASHED),
        (libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED, None, StopReason.MIGRATED),
        (libvirt.VIR_DOMAIN_SHUTOFF_FAILED, None, StopReason.FAILED),
        (libvirt.VIR_DOMAIN_SHUTOFF_UNKNOWN, None, StopReason.UNKNOWN),
        (libvirt.VIR_DOMAIN_SHUTOFF_UNKNOWN, StopReason.GUEST_SHUTDOWN, StopReason.GUEST_SHUTDOWN),
    ],
)
def test_why_a_domain_is_off(reason: int, remembered: StopReason | None, expected: StopReason) -> None:
    assert stop_reason(DomainState.SHUT_OFF, reason, remembered) is expected
    assert stop_reason(DomainState.RUNNING, reason, remembered) is None
    assert stop_reason(DomainState.CRASHED, reason, remembered) is StopReason.CRASHED


def test_a_failed_event_is_a_crash_of_what_ran() -> None:
    assert stop_event(libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED, was_running=True) is StopReason.CRASHED
    assert stop_event(libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED, was_running=False) is StopReason.FAILED
    assert stop_event(libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN, was_running=True) is StopReason.GUEST_SHUTDOWN


def test_why_a_domain_is_paused() -> None:
    assert paused_reason(DomainState.PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR) == "ioerror"
    assert paused_reason(DomainState.PAUSED, 99) == "unknown"
    assert paused_reason(DomainState.RUNNING, libvirt.VIR_DOMAIN_PAUSED_IOERROR) == ""


def test_a_guest_is_read() -> None:
    facts = read_guest({
        "hostname": "web",
        "os.pretty-name": "Debian 12",
        "if.count": 2,
        "if.0.name": "lo", "if.0.addr.count": 1, "if.0.addr.0.addr": "127.0.0.1",
        "if.1.name": "eth0", "if.1.hwaddr": "52:54:00:00:00:01", "if.1.addr.count": 3,
        "if.1.addr.0.addr": "192.0.2.7", "if.1.addr.1.addr": "fe80::1", "if.1.addr.2.addr": "2001:db8::7",
    })  # fmt: skip
    interface = GuestInterfaceFacts("eth0", "52:54:00:00:00:01", ("192.0.2.7", "2001:db8::7"))
    assert facts == GuestFacts("web", "Debian 12", (interface,))
    assert has_address(facts)
    assert read_guest({}) == GuestFacts(None, None, ())
    assert not has_address(read_guest({}))
    assert not has_address(None)
