"""Where things are: the repository, the build and the tools that script/deps links into build/tools."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
TOOLS = BUILD / "tools"
PROTO = ROOT / "proto"
SERVER = Path(os.environ.get("INGESTD", BUILD / "release" / "ingestd"))


def tool(name: str) -> str:
    """The path of a command-line tool; its absence is a failure, never a reason to skip a test."""
    own = TOOLS / "bin" / name
    found = str(own) if own.exists() else shutil.which(name)
    if not found:
        raise AssertionError(f"{name} is missing: run script/deps")
    return found
