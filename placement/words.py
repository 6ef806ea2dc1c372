"""Amounts as people read them."""

from __future__ import annotations


def size(amount: int) -> str:
    """A size in bytes as a quantity of three digits with a binary unit, for example 1.2Gi; off by 0.5 % at most."""
    value = float(amount)
    for unit in ("", "Ki", "Mi", "Gi", "Ti", "Pi"):
        if value < 999.5:
            return f"{value:.3g}{unit}"
        value /= 1024
    return f"{value:.3g}Ei"
