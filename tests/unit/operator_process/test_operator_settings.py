"""Command line and environment."""

from pathlib import Path

import pytest

from tests.unit.operator_process.scripts import script

settings = script("operator_settings")


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    for name in ("POD_NAMESPACE", "HOSTLER_LOG_FORMAT"):
        monkeypatch.delenv(name, raising=False)


def test_the_defaults():
    given = settings.parse([])
    assert given == settings.Settings(
        kubeconfig=None,
        namespace="hostler-system",
        workers=48,
        per_host=12,
        http_address="0.0.0.0",
        http_port=8080,
        log_format="json",
        log_level="info",
        stop_seconds=20.0,
        keep_succeeded=3600.0,
        keep_failed=86400.0,
        keep_operations=100,
    )


@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        (["--kubeconfig", "/a/b"], "kubeconfig", Path("/a/b")),
        (["--namespace", "vms"], "namespace", "vms"),
        (["--workers", "3"], "workers", 3),
        (["--per-host", "2"], "per_host", 2),
        (["--http-address", "127.0.0.1"], "http_address", "127.0.0.1"),
        (["--http-port", "0"], "http_port", 0),
        (["--log-format", "text"], "log_format", "text"),
        (["--log-level", "debug"], "log_level", "debug"),
        (["--stop-seconds", "1.5"], "stop_seconds", 1.5),
        (["--keep-succeeded", "0"], "keep_succeeded", 0.0),
        (["--keep-failed", "604800"], "keep_failed", 604800.0),
        (["--keep-operations", "7"], "keep_operations", 7),
    ],
)
def test_each_of_them_can_be_set(arguments, field, value):
    assert getattr(settings.parse(arguments), field) == value


def test_the_environment_gives_what_the_command_line_leaves_open(monkeypatch):
    monkeypatch.setenv("POD_NAMESPACE", "from-pod")
    monkeypatch.setenv("HOSTLER_LOG_FORMAT", "text")
    given = settings.parse([])
    assert (given.namespace, given.log_format) == ("from-pod", "text")
    assert settings.parse(["--namespace", "mine"]).namespace == "mine"
    monkeypatch.setenv("POD_NAMESPACE", "")
    assert settings.parse([]).namespace == "hostler-system"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--workers", "0"],
        ["--per-host", "-1"],
        ["--workers", "many"],
        ["--http-port", "http"],
        ["--http-port", "70000"],
        ["--http-port", "-1"],
        ["--stop-seconds", "-1"],
        ["--stop-seconds", "nan"],
        ["--keep-succeeded", "-1"],
        ["--keep-failed", "nan"],
        ["--keep-operations", "0"],
        ["--log-format", "xml"],
        ["--log-level", "loud"],
        ["--unknown"],
        ["positional"],
    ],
)
def test_nonsense_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        settings.parse(arguments)
    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_a_wrong_word_in_the_environment_is_refused_too(monkeypatch):
    monkeypatch.setenv("HOSTLER_LOG_FORMAT", "xml")
    with pytest.raises(SystemExit):
        settings.parse([])
