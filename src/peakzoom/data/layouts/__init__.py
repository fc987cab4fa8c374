"""Readers of data set layouts, one a file: class folders, manifests, UCF101, HMDB51 and Kinetics.

docs/data.md describes the layouts. A reader returns a :class:`~peakzoom.data.entries.VideoSet`, with one problem for
each file or row that is not used. It decodes nothing: a file that cannot be decoded is reported later.
"""

from __future__ import annotations
