"""Which host a VM runs on, and why: pure functions over what is known of the hosts."""

from placement.choose import Decision, choose, rejection
from placement.facts import Candidate, Request, memory_overhead
from placement.words import size

__all__ = ["Candidate", "Decision", "Request", "choose", "memory_overhead", "rejection", "size"]
