"""The API: one module a kind, and the registry of all of them.

`KINDS` is the one list that the generator, the operator's watches, the RBAC manifests and the tests go by.
"""

from crds.disk import DISK
from crds.host import HOST
from crds.host_pool import HOST_POOL
from crds.network import NETWORK
from crds.operation import OPERATION
from crds.storage_domain import STORAGE_DOMAIN
from crds.virtual_machine import VIRTUAL_MACHINE

KINDS = (HOST, HOST_POOL, STORAGE_DOMAIN, NETWORK, DISK, VIRTUAL_MACHINE, OPERATION)

__all__ = ["DISK", "HOST", "HOST_POOL", "KINDS", "NETWORK", "OPERATION", "STORAGE_DOMAIN", "VIRTUAL_MACHINE"]
