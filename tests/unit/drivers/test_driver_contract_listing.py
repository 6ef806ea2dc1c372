"""The contract's list of checks."""

from drivers.contract import Contract


def test_every_check_has_a_promise_and_a_name_of_its_own() -> None:
    checks = Contract.checks()
    assert len({check.name for check in checks}) == len(checks)
    assert all(check.promise.endswith(".") and len(check.promise) > 30 for check in checks)
    assert any(check.needs_faults for check in checks)


def test_no_check_is_left_off_its_list() -> None:
    from drivers.contract import (
        block_checks,
        connection_checks,
        device_checks,
        domain_checks,
        fault_checks,
        storage_checks,
    )

    for module in (block_checks, connection_checks, device_checks, domain_checks, fault_checks, storage_checks):
        written = {
            name
            for name, value in vars(module).items()
            if getattr(value, "__module__", None) == module.__name__ and not name.startswith("_")
        }
        assert written == {check.__name__ for check in module.CHECKS}
