"""What `up` tells the person in front of it: one line per event, each with the time since the start."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

HEARTBEAT_SECONDS = 20.0


class Progress:
    """Prints lines like `  12.3 s  control plane: ready`. Safe between threads."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._quiet = quiet

    def say(self, text: str) -> None:
        if self._quiet:
            return
        with self._lock:
            print(f"{time.monotonic() - self._began:7.1f} s  {text}", file=sys.stderr, flush=True)

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Say when the step began, that it still runs every HEARTBEAT_SECONDS, and how long it took."""
        began = time.monotonic()
        over = threading.Event()
        self.say(f"{text} ...")
        heart = threading.Thread(target=self._beat, args=(text, began, over), daemon=True)
        heart.start()
        try:
            yield
        except BaseException:
            self.say(f"{text}: failed after {time.monotonic() - began:.1f} s")
            raise
        finally:
            over.set()
            heart.join()
        self.say(f"{text}: done in {time.monotonic() - began:.1f} s")

    def _beat(self, text: str, began: float, over: threading.Event) -> None:
        while not over.wait(HEARTBEAT_SECONDS):
            self.say(f"{text}: {time.monotonic() - began:.0f} s so far")
