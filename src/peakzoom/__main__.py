"""``python -m peakzoom``, which is what ``torchrun -m peakzoom`` starts in every process."""

from __future__ import annotations

from peakzoom.cli import main

if __name__ == "__main__":
    main()
