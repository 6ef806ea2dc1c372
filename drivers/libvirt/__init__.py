"""Hosts spoken to through libvirt: `LibvirtDirectory` is what the rest of the program sees."""

from drivers.libvirt.directory import LibvirtDirectory

__all__ = ["LibvirtDirectory"]
