"""The guest's reader of YAML and JSON, on every awk of this machine, against a real parser."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import lab.guest

SCRIPT = Path(lab.guest.__file__).parent / "root/usr/lib/guest/flatten.awk"
AWKS = [["awk"], *([["busybox", "awk"]] if shutil.which("busybox") else [])]


def flattened(document: object, path: str = "") -> list[str]:
    if isinstance(document, dict):
        parts = [(str(key), value) for key, value in document.items()]
    elif isinstance(document, list):
        parts = [(str(number), value) for number, value in enumerate(document, 1)]
    else:
        return [f"{path}={document}"]
    return [line for key, value in parts for line in flattened(value, f"{path}/{key}" if path else key)]


def read(awk: list[str], text: str) -> list[str]:
    return subprocess.run(
        [*awk, "-f", str(SCRIPT)], input=text, capture_output=True, text=True, check=True
    ).stdout.splitlines()


NETWORK = """\
# a comment
network:
  version: 2
  ethernets:
    id0:            # the first
      match: {macaddress: "52:54:00:AA:bb:01"}
      addresses:
      - 10.88.0.21/24
      - '2001:db8::21/64'
      routes:
        - to: default
          via: 10.88.0.1
        -   to: 10.0.0.0/8
            via: 10.88.0.2
      nameservers: {addresses: [10.88.0.1, "10.88.0.2"], search: []}
    eth1:
      dhcp4: "true"
"""


@pytest.mark.parametrize("awk", AWKS, ids=" ".join)
def test_a_network_config(awk: list[str]) -> None:
    assert read(awk, NETWORK) == flattened(yaml.safe_load(NETWORK))


@pytest.mark.parametrize("awk", AWKS, ids=" ".join)
def test_json_on_one_line_and_on_many(awk: list[str]) -> None:
    document = {"instance-id": "i-1", "local-hostname": "web-1", "a": [{"b": "c"}, ["d", "e:f"]]}
    assert read(awk, json.dumps(document)) == flattened(document)
    assert read(awk, json.dumps(document, indent=2)) == flattened(document)


@pytest.mark.parametrize("awk", AWKS, ids=" ".join)
def test_commands_are_plain_strings(awk: list[str]) -> None:
    text = "#cloud-config\nruncmd:\n- echo a > /run/a\n  \n- 'echo \"b: c\" # d'\n- touch /e # f\n"
    assert read(awk, text) == ["runcmd/1=echo a > /run/a", 'runcmd/2=echo "b: c" # d', "runcmd/3=touch /e"]


WORDS = st.from_regex(r"[a-z][a-z0-9./:-]{0,12}[a-z0-9]", fullmatch=True).filter(
    lambda word: isinstance(yaml.safe_load(word), str)
)
KEYS = st.from_regex(r"[a-z][a-z0-9-]{0,8}[a-z]", fullmatch=True).filter(
    lambda word: isinstance(yaml.safe_load(word), str)
)
VALUES = st.recursive(
    WORDS,
    lambda inner: st.dictionaries(KEYS, inner, min_size=1, max_size=3) | st.lists(inner, min_size=1, max_size=3),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None)
@given(document=st.dictionaries(KEYS, VALUES, min_size=1, max_size=3), flow=st.sampled_from([True, False, None]))
def test_what_a_yaml_writer_writes_is_read_back(document: dict[str, object], flow: bool | None) -> None:
    text = yaml.safe_dump(document, default_flow_style=flow, sort_keys=False, width=10_000)
    for awk in AWKS:
        assert read(awk, text) == flattened(document)
