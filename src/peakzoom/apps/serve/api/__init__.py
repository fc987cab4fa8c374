"""The REST API: ``models.py`` is what it sends, ``routes.py`` its paths, ``desk.py`` and ``jobs.py`` do the work."""

from __future__ import annotations
