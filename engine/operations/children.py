"""A step that is an operation of its own: begun, waited for, and undone as its context says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from engine import errors
from engine.keys import Key, Object
from engine.operations import journal as book
from engine.operations import order as orders
from engine.operations.definition import Run, Step
from engine.operations.journal import Journal, Phase
from engine.operations.order import KIND, OPERATIONS, Compensation, LockUse, Order, Ref
from engine.operations.outcomes import Done, InProgress, NotDone, Observed, Permanent
from engine.operations.requests import CALL_SECONDS, Request, cancel, child_name, create, digest, ordered

_LOOK_AGAIN = 30.0
"""Seconds; its phase wakes its parent."""


class ChildStep(Step[Any]):
    """Begins an operation and waits until it has succeeded; `ChildStep.of` makes one.

    When the parent rolls back, the child is cancelled if it runs. Once it has succeeded: `Compensation.INHERIT`, it is
    undone by an operation of its type, whose execution reason is Rollback; `OWN`, it stays; `DETACHED`: it is neither
    waited for nor cancelled.
    """

    @classmethod
    def of(cls, name: str, request: Request) -> ChildStep:
        """The step of that name. With `LockUse.INHERIT` the child works under the parent's locks."""
        return cls(name, {"request": request.to_dict()})

    async def observe(self, run: Run[Any]) -> Observed:
        found = await self._child(run)
        if found is None:
            return NotDone()
        return self._seen(found)

    async def do(self, run: Run[Any]) -> Done | InProgress:
        order = ordered(run.operations, self._request(run), name=self._key(run).name, parent=_maker(run))
        run.check(CALL_SECONDS)
        seen = self._seen(await create(run.operations, order))
        assert isinstance(seen, Done | InProgress), "it is there now"
        return seen

    async def undo(self, run: Run[Any]) -> InProgress | None:
        found = await self._child(run)
        if found is None:
            return None
        child, journal = orders.parse(found), book.parse(found)
        if child.context.compensation is Compensation.DETACHED:
            return None
        if not journal.ended:
            run.check(CALL_SECONDS)
            await cancel(run.operations, found)
            return InProgress(journal_percent(found), _LOOK_AGAIN)
        if journal.phase is not Phase.SUCCEEDED or child.context.compensation is Compensation.OWN:
            return None
        return await self._taken_back(run, child)

    def _seen(self, found: Object) -> Done | InProgress:
        child, journal = orders.parse(found), book.parse(found)
        if child.context.compensation is Compensation.DETACHED:
            return Done(child.key.name)
        if not journal.ended:
            return InProgress(journal_percent(found), _LOOK_AGAIN)
        if journal.phase is Phase.SUCCEEDED:
            return Done(child.key.name)
        raise Permanent(f"{child.key.name}: {journal.first_cause or _why(journal)}")

    def _request(self, run: Run[Any]) -> Request:
        request = Request.from_dict(dict(self.parameters["request"]), run.order.context.correlation_id)
        return replace(request, requested_by=request.requested_by or run.order.context.requested_by)

    def _key(self, run: Run[Any]) -> Key:
        maker = _maker(run)
        return Key(KIND, maker.namespace, child_name(maker, self.name))

    async def _child(self, run: Run[Any]) -> Object | None:
        """The child; None when there is none, or somebody else's has its name."""
        found = await _find(run, self._key(run))
        if found is None:
            return None
        parent = orders.parse(found).parent
        return found if parent is not None and parent.uid == run.maker else None

    async def _taken_back(self, run: Run[Any], child: Order) -> InProgress | None:
        """By another operation, in the child's namespace or, if that takes nothing new any more, in the operator's."""
        name = f"undo-{child.key.name[:200]}-{digest(child.uid)}"
        for namespace in dict.fromkeys((child.key.namespace, run.operations.namespace)):
            found = await _find(run, Key(KIND, namespace, name))
            if found is None:
                run.check(CALL_SECONDS)
                try:
                    found = await create(run.operations, _undoing(run, child, Key(KIND, namespace, name)))
                except errors.Forbidden:
                    if namespace == run.operations.namespace:
                        raise
                    continue
            journal = book.parse(found)
            if journal.phase is Phase.FAILED:
                raise Permanent(f"{name}: {_why(journal)}")
            return None if journal.ended else InProgress(journal_percent(found), _LOOK_AGAIN)
        raise AssertionError("the operator's namespace is the last one")


def journal_percent(found: Object) -> int | None:
    """How far an operation says that it has come."""
    percent = (found.get("status") or {}).get("progress")
    return int(percent) if percent is not None else None


def _maker(run: Run[Any]) -> Ref:
    return run.order.undoes if run.order.undoes is not None else run.order.ref


async def _find(run: Run[Any], key: Key) -> Object | None:
    found = run.operations.cache.get(key)
    if found is not None:
        return found
    try:
        found = await run.operations.client.get(OPERATIONS, key.namespace, key.name)
    except errors.NotFound:
        return None
    run.operations.cache.upsert(found)
    return found


def _undoing(run: Run[Any], child: Order, key: Key) -> Order:
    lock = child.context.lock
    context = replace(child.context, compensation=Compensation.OWN, lock=lock)
    wanted = child.wanted if lock is not LockUse.NONE else ()
    return replace(
        child, key=key, uid="", context=context, wanted=wanted, rollback=True, cancelled=False, deleting=False,
        parent=run.order.ref, undoes=child.ref,
    )  # fmt: skip


def _why(journal: Journal) -> str:
    return journal.message or journal.phase.value
