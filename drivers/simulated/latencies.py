"""How long calls take, measured on real hosts."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import NamedTuple

_SIGMAS = 1.645
"""Where the 95th percentile of a normal distribution lies."""
_LONGEST = 2.5
"""Standard deviations beyond which nothing lies: nothing that slow was measured."""


class Latency(NamedTuple):
    """Seconds from sending a call to its answer."""

    median: float
    high: float
    """95th percentile."""

    def draw(self, rng: random.Random) -> float:
        """One such time: log-normal, as waiting times are, without the far end of its tail."""
        if self.high <= self.median:
            return self.median
        sigma = math.log(self.high / self.median) / _SIGMAS
        return self.median * math.exp(sigma * min(rng.gauss(0.0, 1.0), _LONGEST))


Latencies = Mapping[str, Latency]
"""By name of the call; `*` for all that are not named, `event` for the way of an event to its listeners."""

MEASURED: Latencies = {
    "*": Latency(0.0016, 0.0077),  # as the heartbeat, the cheapest call there is
    "event": Latency(0.0008, 0.0038),  # half of that: one way
    "abort": Latency(0.0008, 0.0010),
    "attach_device": Latency(0.0052, 0.0494),
    "baseline_cpu": Latency(0.0076, 0.0077),
    "block_job": Latency(0.0047, 0.0180),
    "cancel_job": Latency(0.0395, 0.1641),
    "commit": Latency(0.0155, 0.0415),
    "connect": Latency(0.0229, 0.0346),
    "copy_block": Latency(0.0063, 0.0691),
    "copy_volume": Latency(0.0548, 0.1925),
    "create_volume": Latency(0.0157, 0.0516),
    "define": Latency(0.0040, 0.0077),
    "delete_volume": Latency(0.0040, 0.0119),
    "destroy": Latency(0.0048, 0.2316),
    "detach_device": Latency(0.0031, 0.0059),
    "domain_xml": Latency(0.0017, 0.0047),
    "download": Latency(0.0010, 0.0077),
    "ensure_pool": Latency(0.0045, 0.0094),
    "facts": Latency(0.0286, 0.0332),
    "heartbeat": Latency(0.0016, 0.0077),
    "list": Latency(0.0013, 0.0049),
    "volume_names": Latency(0.0034, 0.0136),
    "volume": Latency(0.0034, 0.0100),
    "pool_info": Latency(0.0087, 0.0340),
    "pivot": Latency(0.0264, 0.0438),
    "query_guest": Latency(0.0029, 0.0040),
    "read": Latency(0.0055, 0.0204),
    "reset": Latency(0.0258, 0.0303),
    "resize_block": Latency(0.0079, 0.0118),
    "resize_volume": Latency(0.0051, 0.0382),
    "resume": Latency(0.0109, 0.0201),
    "set_metadata": Latency(0.0086, 0.0114),
    "shutdown": Latency(0.0080, 0.0126),
    "snapshot": Latency(0.0833, 0.1592),
    "start": Latency(0.5486, 1.0171),
    "suspend": Latency(0.0119, 0.0204),
    "undefine": Latency(0.0045, 0.0121),
    "update_device": Latency(0.0786, 0.0875),
    "upload": Latency(0.0008, 0.0199),
    "volume_path": Latency(0.0038, 0.0177),
}
"""Of `python -m drivers.contract --uri qemu+tls://HOST/system --latencies`, which prints this table: libvirt 9.0 and
QEMU 7.2 without KVM, over TLS on one machine under load. Calls that found nothing to do count too, so `destroy` is
quick by its median and takes its time by its 95th percentile.
"""
