"""How the operator is started: command line and environment, one place for both."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

DEFAULT_NAMESPACE = "hostler-system"
LOG_FORMATS = ("json", "text")


@dataclass(frozen=True)
class Settings:
    """Everything that can be set from outside."""

    kubeconfig: Path | None
    """Kubeconfig file; None: the pod's service account, or else the usual places."""
    namespace: str
    """The operator's own namespace, with the Secrets of hosts."""
    workers: int
    """Reconciles that run at once."""
    per_host: int
    """Of these, how many may work on VMs of one host."""
    http_address: str
    http_port: int
    """Where /healthz, /readyz and /metrics are served."""
    log_format: str
    """json or text."""
    log_level: str
    stop_seconds: float
    """How long reconciles may go on after SIGTERM."""
    keep_succeeded: float
    """Seconds for which operations that have succeeded are kept."""
    keep_failed: float
    """Seconds for which other operations that have ended are kept."""
    keep_operations: int
    """How many of each are kept in a namespace."""


def parse(arguments: Sequence[str] | None = None) -> Settings:
    """Settings from the command line; what is not given there comes from the environment. Exits on bad input."""
    parser = argparse.ArgumentParser(
        prog="python operator",
        description="Hostler: manages VMs on KVM hosts, as declared in Kubernetes.",
        epilog="On SIGTERM no new work begins, what runs may finish, guests run on untouched.",
    )
    env = os.environ.get
    parser.add_argument(
        "--kubeconfig", type=Path, default=None, help="kubeconfig file (default: in-cluster, KUBECONFIG)"
    )
    parser.add_argument(
        "--namespace",
        default=env("POD_NAMESPACE") or DEFAULT_NAMESPACE,
        help="the operator's namespace (POD_NAMESPACE)",
    )
    parser.add_argument("--workers", type=_positive, default=48, help="reconciles at once (48)")
    parser.add_argument("--per-host", type=_positive, default=12, help="reconciles at once for VMs of one host (12)")
    parser.add_argument("--http-address", default="0.0.0.0", help="address of health and metrics (all)")  # noqa: S104
    parser.add_argument("--http-port", type=_port, default=8080, help="port of health and metrics (8080; 0: none)")
    parser.add_argument("--log-format", choices=LOG_FORMATS, default=env("HOSTLER_LOG_FORMAT") or "json")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    parser.add_argument("--stop-seconds", type=_seconds, default=20.0, help="time for running work after SIGTERM (20)")
    parser.add_argument(
        "--keep-succeeded", type=_age, default=3600.0, help="seconds to keep operations that have succeeded (3600)"
    )
    parser.add_argument(
        "--keep-failed", type=_age, default=86400.0, help="seconds to keep operations that ended otherwise (86400)"
    )
    parser.add_argument(
        "--keep-operations", type=_positive, default=100, help="of each, how many to keep in a namespace (100)"
    )
    given = parser.parse_args(arguments)
    if given.log_format not in LOG_FORMATS:
        # argparse looks at what is given, not at defaults.
        parser.error(f"HOSTLER_LOG_FORMAT must be one of {', '.join(LOG_FORMATS)}")
    return Settings(
        kubeconfig=given.kubeconfig,
        namespace=given.namespace,
        workers=given.workers,
        per_host=given.per_host,
        http_address=given.http_address,
        http_port=given.http_port,
        log_format=given.log_format,
        log_level=given.log_level,
        stop_seconds=given.stop_seconds,
        keep_succeeded=given.keep_succeeded,
        keep_failed=given.keep_failed,
        keep_operations=given.keep_operations,
    )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError("must be 0 to 65535")
    return value


def _age(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 366 * 86400:
        raise argparse.ArgumentTypeError("must be 0 to 31622400")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 3600:
        raise argparse.ArgumentTypeError("must be 0 to 3600")
    return value
