"""Drawing of plain arrays; knows no result class."""

from __future__ import annotations
