"""`python operator`: the folder is run as a script: as a package it would shadow the standard library's module."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from main import main

sys.exit(main())
