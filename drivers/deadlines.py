"""How long the calls of a driver may take, in seconds. Every driver keeps them."""

CALL_SECONDS = 15.0
START_SECONDS = 60.0
DESTROY_SECONDS = 30.0
DEVICE_SECONDS = 30.0
DETACH_SECONDS = 10.0
"""How long a guest has to give a device up."""
AGENT_SECONDS = 15.0
GUEST_SECONDS = 30.0

SNAPSHOT_SECONDS = 60.0
"""Freezing and thawing the guest included."""
BLOCK_SECONDS = 60.0
"""Beginning and ending a block job: QEMU first finishes the writes that are under way."""

OPEN_SECONDS = 15.0
READ_SECONDS = 10.0
LIST_SECONDS = 30.0
FACTS_SECONDS = 60.0

SCAN_SECONDS = 60.0
CREATE_SECONDS = 300.0
COPY_SECONDS = 3600.0
CHUNK_SECONDS = 60.0

MISSES = 2
"""Heartbeats in a row that must be missed before a host is suspect."""
KEEPALIVE_INTERVAL = 5
KEEPALIVE_COUNT = 3
"""A daemon that is silent for interval x (count + 1) seconds has lost its connection."""
