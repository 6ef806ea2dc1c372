"""Who waits for which fact, and which facts were announced while somebody was looking.

The second half is what makes waking safe: a reconcile that looks, finds nothing, and only then begins to wait would
sleep through a fact announced in between.
"""

from engine.keys import Key


class Waits:
    """Facts are names that reconcilers and drivers agree on; the engine gives them no meaning."""

    def __init__(self) -> None:
        self._facts: dict[Key, frozenset[str]] = {}
        self._keys: dict[str, set[Key]] = {}
        self._announced: dict[Key, set[str]] = {}

    def begin(self, key: Key) -> None:
        """A pass over that key begins: what it waited for before no longer counts."""
        self._drop(key)
        self._announced[key] = set()

    def end(self, key: Key) -> None:
        self._announced.pop(key, None)

    def running(self) -> frozenset[Key]:
        """The keys between `begin` and `end`."""
        return frozenset(self._announced)

    def wait(self, key: Key, facts: frozenset[str]) -> bool:
        """Remembers that the key waits for any of these; True, and nothing remembered, if one came meanwhile."""
        if facts & self._announced.get(key, set()):
            return True
        if facts:
            self._facts[key] = facts
            for fact in facts:
                self._keys.setdefault(fact, set()).add(key)
        return False

    def announce(self, fact: str) -> list[Key]:
        """The keys that waited for this fact, which now wait for nothing; sorted."""
        for announced in self._announced.values():
            announced.add(fact)
        woken = sorted(self._keys.get(fact, ()))
        for key in woken:
            self._drop(key)
        return woken

    def _drop(self, key: Key) -> None:
        for fact in self._facts.pop(key, frozenset()):
            self._keys[fact].discard(key)
            if not self._keys[fact]:
                del self._keys[fact]
