"""What every driver promises, as checks that run against a real host.

`Contract` lists the checks and runs them on a `Bed`; it needs no test framework. A second driver passes it as it
stands.
"""

from drivers.contract.bed import Bed, Faults, Images
from drivers.contract.suite import Check, Contract, Outcome

__all__ = ["Bed", "Check", "Contract", "Faults", "Images", "Outcome"]
