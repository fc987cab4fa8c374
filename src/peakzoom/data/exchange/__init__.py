"""Files of annotation tools, read as data sets and written from them: CVAT, Label Studio, VIA 3, ActivityNet.

Reads in this order: ``project.py`` is what such a file says, whatever the tool; ``cvat.py``, ``label_studio.py``,
``via.py`` and ``activitynet.py`` read and write one format each, from what ``contents.py`` lets through; ``finder.py``
finds the videos, and ``clock.py`` turns frame numbers into seconds; ``reading.py`` makes a data set of a file,
``places.py`` places of its boxes, ``writing.py`` files of a data set. docs/annotate.md is for users.
"""

from __future__ import annotations
