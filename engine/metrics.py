"""Every metric of the process that is not a driver's own, in one place.

Labels are kinds, verbs and outcomes only: never an object, a host or a message, so that the number of series does
not grow with the fleet. They live in prometheus_client's default registry, next to its process metrics.
"""

from prometheus_client import Counter, Gauge, Histogram

_LATENCY = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_WORK = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)

queue_depth = Gauge("hostler_queue_depth", "Keys that wait to be worked on", ["priority"])
queue_in_work = Gauge("hostler_queue_in_work", "Keys that are being worked on")
queue_scheduled = Gauge("hostler_queue_scheduled", "Keys with a due time in the future")
queue_oldest_seconds = Gauge("hostler_queue_oldest_seconds", "How long the oldest waiting key has waited")
queue_adds = Counter("hostler_queue_adds", "Keys that began to wait", ["kind", "priority"])
queue_retries = Counter("hostler_queue_retries", "Keys put off by back-off", ["kind"])

reconcile_seconds = Histogram("hostler_reconcile_seconds", "Duration of one reconcile", ["kind"], buckets=_WORK)
reconciles = Counter("hostler_reconciles", "Reconciles by how they ended", ["kind", "result"])
reconcile_deadlines = Counter("hostler_reconcile_deadlines", "Reconciles cut off at their deadline", ["kind"])

api_writes = Counter("hostler_api_writes", "Writes of objects, one per answer", ["kind", "verb", "code"])
api_seconds = Histogram("hostler_api_seconds", "Duration of API calls", ["kind", "verb"], buckets=_LATENCY)
api_retries = Counter("hostler_api_retries", "API calls sent again inside the client", ["kind", "reason"])
events = Counter("hostler_events", "Kubernetes Events by what became of them", ["outcome"])

session_renewals = Counter("hostler_session_renewals", "Renewals of this process's session, by outcome", ["outcome"])
locks_held = Gauge("hostler_locks_held", "Locks that this process holds")
lock_wait_seconds = Histogram(
    "hostler_lock_wait_seconds", "From the claim of a set of locks to its grant", buckets=_WORK
)
lock_refusals = Counter(
    "hostler_lock_refusals", "Claims that were not granted, by reason (Held: a conflict)", ["reason"]
)
lock_takeovers = Counter(
    "hostler_lock_takeovers", "Locks of dead processes: resumed by their operation, settled, or failed", ["outcome"]
)

operations_running = Gauge("hostler_operations_open", "Operations that have not ended", ["type"])
operation_seconds = Histogram(
    "hostler_operation_seconds",
    "From the grant of its locks to the end of an operation",
    ["type", "result"],
    buckets=(*_WORK, 600.0, 3600.0),
)
operation_step_seconds = Histogram(
    "hostler_operation_step_seconds",
    "Duration of steps that were done",
    ["type", "step"],
    buckets=(*_WORK, 600.0, 3600.0),
)

driver_seconds = Histogram(
    "hostler_driver_call_seconds", "Duration of calls to hosts", ["method", "outcome"], buckets=_WORK
)

import_bytes = Counter("hostler_import_bytes", "Bytes that imports have brought to hosts")
import_rate = Histogram(
    "hostler_import_bytes_per_second",
    "Bytes of the source a second, of imports that succeeded",
    buckets=(2**16, 2**18, 2**20, 2**22, 2**24, 2**26, 2**28, 2**30),
)
imports = Counter("hostler_imports", "Imports by how they ended: ok, or the reason", ["outcome"])


def observe_driver_call(method: str, seconds: float, outcome: str) -> None:
    """For the drivers, which know nothing of this module: one call to a host has ended.

    `outcome` is "ok" or the name of the error's class.
    """
    driver_seconds.labels(method, outcome).observe(seconds)
