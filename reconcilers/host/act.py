"""What users are told when a host comes, goes, or is lost. What depends on it is woken by the change of its status."""

from __future__ import annotations

from crds.host import Host
from drivers.model import ConnectionState, ConnectionView
from reconcilers.context import Context
from reconcilers.host.decide import Plan


def announce(ctx: Context, host: Host, plan: Plan, view: ConnectionView | None) -> None:
    """Tell of what differs from the status as it is written down, before the new one is.

    A process that dies in between tells it twice, which is better than never.
    """
    connected = view is not None and view.state is ConnectionState.CONNECTED
    before = host.status.condition("Connected")
    was_connected = before is not None and before.status == "True"
    if connected and not was_connected:
        ctx.event(host, "Connected", f"connected to {host.spec.uri}")
    if was_connected and not connected:
        ctx.event(host, "Lost", f"the connection is lost: {plan.verdict.message}", warning=True)
