"""The command ``peakzoom``, also as ``python -m peakzoom``: what ``torchrun -m peakzoom`` starts in every process.

All commands are imported below the handler: that takes half a second, in which Ctrl-C may come.
"""

from __future__ import annotations

import sys

INTERRUPTED = 130  # as of peakzoom.cli.stop


def main() -> None:
    """Run the command line; a Ctrl-C while it is imported ends it as one that comes later does."""
    try:
        from peakzoom.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
