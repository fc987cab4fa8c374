"""A terminal for a child process: what it writes when it believes that somebody watches."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence


def environment(**values: str) -> dict[str, str]:
    """This process's, without a word on colours, with the same modules to import."""
    kept = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
    return {**kept, "TERM": "xterm-256color", "PYTHONPATH": os.pathsep.join(sys.path), **values}


def in_terminal(words: Sequence[str], env: dict[str, str], *, apart: bool = False) -> tuple[str, str]:
    """Run Python with these words; standard output where it is kept ``apart``, and what the terminal gets."""
    above, below = pty.openpty()
    fcntl.ioctl(below, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))  # rows and columns
    child = subprocess.Popen(
        [sys.executable, *words],
        stdin=below,
        stdout=subprocess.PIPE if apart else below,
        stderr=below,
        env=env,
    )
    os.close(below)
    seen = b""
    try:
        while more := os.read(above, 65536):
            seen += more
    except OSError:  # Linux ends a pseudo-terminal so
        pass
    output, _ = child.communicate()
    os.close(above)
    assert child.returncode == 0, seen
    return (output or b"").decode(), seen.decode()
