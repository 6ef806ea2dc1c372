"""Running the programs that make the guest, with errors that say what to do."""

import os
import shutil
import subprocess
from pathlib import Path


class GuestError(RuntimeError):
    """The guest image cannot be built; the text says what is missing or which program said what."""


def run(tool: str, *arguments: str, cwd: Path | None = None, stdin: bytes | None = None) -> bytes:
    """What ``tool`` printed. Raises GuestError if it is missing or fails."""
    # Users' PATH lacks /usr/sbin on Debian, where mkfs.vfat is.
    program = shutil.which(tool) or shutil.which(tool, path="/usr/sbin:/sbin")
    if program is None:
        raise GuestError(f"{tool} is not installed (python3 lab/setup.py installs what the lab needs)")
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(
        [program, *arguments], cwd=cwd, input=stdin, capture_output=True, check=False, env=environment
    )
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()[-600:]
        raise GuestError(f"{Path(tool).name} {' '.join(arguments)[:200]}: {said}")
    return done.stdout
