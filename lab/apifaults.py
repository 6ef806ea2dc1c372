"""What can go wrong between a client and the API server: rules, and the handle by which they are set.

The proxy (`lab.apiproxy`) obeys them; it runs once it is asked for. Only clients that speak to the proxy's port are
touched: `ApiFaults.through` sends a kubeconfig that way.
"""

from __future__ import annotations

import argparse
import json
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

from lab.control import Control
from lab.errors import LabError
from lab.forward import LOOPBACK, forward, free_port
from lab.pki import lab_authority
from lab.processes import end, python, spawn, wait_until
from lab.state import State

PORT_FACT = "apiproxy_port"
APISERVER_PORT_FACT = "apiserver_port"
FRONT_PROXY_NAME = "lab-apiproxy"
"""Common name by which the API server believes the proxy who its clients are."""
CONTROL_PATH = "/-/faults"
"""Where the proxy itself is spoken to; Kubernetes has no such path."""
_NAME = "apiproxy"


class Action(StrEnum):
    """What a rule does to the requests that it hits."""

    DELAY = "delay"  # the request waits
    LOSE_REQUEST = "lose-request"  # the connection breaks before anything is carried out
    LOSE_REPLY = "lose-reply"  # it is carried out, then the connection breaks (not for watches)
    ANSWER = "answer"  # the API server is not asked; `status` is the answer
    CUT = "cut"  # a watch breaks when it is `seconds` old
    SILENCE = "silence"  # a watch that is open meanwhile says nothing any more, and stays open
    PAGE = "page"  # lists come in pages of at most `limit`


@dataclass(frozen=True)
class Rule:
    """One fault. A request is hit by the first rule that fits and whose die falls so; delays hit beside others."""

    action: Action
    probability: float = 1.0
    seconds: float = 0.0
    """Of a delay, or a watch's age when it is cut."""
    status: int = 500
    retry_after: int | None = None
    """Seconds, as the header Retry-After of the answer."""
    limit: int = 1
    methods: Collection[str] = ()
    """HTTP methods; none given: all."""
    path: str = ""
    """A regular expression that the URL's path must contain."""
    watches: bool | None = None
    """True: watches only; False: all but watches."""
    lasts: float | None = None
    """Seconds from its setting until the rule is forgotten; None: until it is cleared."""

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise LabError(f"a probability lies between 0 and 1, not at {self.probability}")
        try:
            re.compile(self.path)
        except re.error as error:
            raise LabError(f"{self.path!r} is no regular expression: {error}") from error

    @classmethod
    def of(cls, document: dict[str, Any]) -> Rule:
        """A rule from JSON. Raises LabError for what is none."""
        known = {field.name for field in fields(cls)}
        if unknown := set(document) - known:
            raise LabError(f"a rule has no {', '.join(sorted(unknown))}; it has {', '.join(sorted(known))}")
        try:
            return cls(**{**document, "action": Action(document["action"])})
        except (KeyError, ValueError, TypeError) as error:
            raise LabError(f"{document} is no rule: its action is one of {', '.join(Action)}") from error

    def fits(self, method: str, path: str, *, watch: bool) -> bool:
        """Whether it is about requests of this kind."""
        if self.methods and method not in self.methods:
            return False
        if self.watches is not None and self.watches != watch:
            return False
        if watch and self.action in (Action.LOSE_REPLY, Action.PAGE):
            return False
        if not watch and self.action in (Action.CUT, Action.SILENCE):
            return False
        if self.action is Action.PAGE and method != "GET":
            return False
        return re.search(self.path, path) is not None


class ApiFaults:
    """The proxy of one lab and its rules. Making the object touches nothing; works inside and outside the lab."""

    def __init__(self, state: State) -> None:
        self.state = state

    @property
    def port(self) -> int:
        """Where the proxy listens, on 127.0.0.1 inside and outside. Raises LabError while it was never up."""
        port: int | None = self.state.facts.get(PORT_FACT)
        if port is None:
            raise LabError("no proxy stands before the API server yet: `python -m lab api-fault up`")
        return port

    def up(self) -> None:
        """Have the proxy run; what it was told before it died is forgotten. Raises LabError."""
        control = Control(self.state)
        process = self.state.process(_NAME)
        if process and control.lives_here(process):
            return
        if process:
            end([process], grace=0)
        if APISERVER_PORT_FACT not in self.state.facts:
            raise LabError(f"the lab in {self.state.folder} has no control plane: run `python -m lab up`")
        if PORT_FACT not in self.state.facts:
            self.state.remember(**{PORT_FACT: free_port(self.state)})
        authority, folder = lab_authority(self.state.pki), self.state.pki / "apiproxy"
        authority.issue(folder, "serving", _NAME, names=["localhost"], addresses=[LOOPBACK])
        authority.issue(folder, "front-proxy", FRONT_PROXY_NAME)
        upstream = str(self.state.facts[APISERVER_PORT_FACT])
        command = python("lab.apiproxy", str(self.state.pki), str(self.port), upstream)
        process = spawn(self.state, _NAME, command, inside=control.process.pid)
        forward(self.state, self.port)
        wait_until("the API proxy", self._answers, 30, process=process, log=self.state.log(_NAME))

    def down(self) -> None:
        """End the proxy, and with it every connection through it."""
        if process := self.state.process(_NAME):
            end([process], grace=0)
        self.state.forget(_NAME)

    def through(self, kubeconfig: str) -> str:
        """The same kubeconfig, by way of the proxy."""
        direct = f"https://{LOOPBACK}:{self.state.facts[APISERVER_PORT_FACT]}"
        return kubeconfig.replace(direct, f"https://{LOOPBACK}:{self.port}")

    def set(self, *rules: Rule) -> None:
        """These rules hold from now on, and no others."""
        self._ask("PUT", [asdict(rule) for rule in rules])

    def clear(self) -> None:
        """No fault any more. A watch that has fallen silent stays so."""
        self.set()

    def rules(self) -> list[Rule]:
        """What holds now."""
        return [Rule.of(document) for document in self._ask("GET")["rules"]]

    def counts(self) -> dict[str, int]:
        """How often each action has hit since the proxy began, and `requests`, `watches` (open now)."""
        counts: dict[str, int] = self._ask("GET")["counts"]
        return counts

    def _answers(self) -> bool:
        try:
            self._ask("GET")
        except LabError:
            return False
        return True

    def _ask(self, method: str, document: Any = None) -> Any:
        context = ssl.create_default_context(cafile=str(self.state.authority))
        body = None if document is None else json.dumps(document).encode()
        request = urllib.request.Request(f"https://{LOOPBACK}:{self.port}{CONTROL_PATH}", data=body, method=method)
        try:
            with urllib.request.urlopen(request, context=context, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise LabError(error.read().decode()) from error
        except (urllib.error.URLError, OSError) as error:
            raise LabError(f"the API proxy does not answer: {error}") from error


def main(state: State, arguments: Sequence[str]) -> int:
    """`lab api-fault …`: have the proxy, set its rules, see them."""
    parser = argparse.ArgumentParser(prog="lab api-fault", description="Faults before the API server.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("up", help="have the proxy run, and print its address")
    verbs.add_parser("down", help="end the proxy")
    verbs.add_parser("show", help="rules that hold, and how often each action has hit")
    verbs.add_parser("clear", help="no fault any more")
    setting = verbs.add_parser("set", help="rules as JSON objects; they replace those before")
    setting.add_argument("rule", nargs="+", help='{"action": "answer", "status": 429, "probability": 0.3}')
    options = parser.parse_args(arguments)
    faults = ApiFaults(state)
    if options.verb == "up":
        faults.up()
        print(f"https://{LOOPBACK}:{faults.port}")
    elif options.verb == "down":
        faults.down()
    elif options.verb == "clear":
        faults.clear()
    elif options.verb == "set":
        faults.set(*(Rule.of(_json(text)) for text in options.rule))
    else:
        shown = {"rules": [asdict(rule) for rule in faults.rules()], "counts": faults.counts()}
        print(json.dumps(shown, indent=2))
    return 0


def _json(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise LabError(f"{text!r} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise LabError(f"{text!r} is no JSON object")
    return document
