"""Whatever is wrong with a kubeconfig comes as one error that names the file."""

from __future__ import annotations

from pathlib import Path

import pytest
from kubernetes.aio.config import ConfigException

from engine.kube import KubeClient


@pytest.mark.parametrize("content", ["{no: [kubeconfig", "", "[]", "text", "clusters: 5\ncurrent-context: x\n"])
async def test_file_that_is_no_kubeconfig(tmp_path: Path, content: str) -> None:
    file = tmp_path / "config"
    file.write_text(content)
    with pytest.raises(ConfigException, match=str(file)):
        await KubeClient.from_kubeconfig(file)


async def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigException, match=f"there is no file {tmp_path}/config"):
        await KubeClient.from_kubeconfig(tmp_path / "config")
