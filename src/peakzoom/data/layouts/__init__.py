"""Readers of data set layouts, one a file: class folders, manifests, UCF101, HMDB51 and Kinetics.

Each gives a :class:`~peakzoom.data.entries.VideoSet`, with one problem for each thing that was named or found but is
not used. Nothing is decoded here; a file that cannot be decoded is found later, by whoever decodes it.
"""

from __future__ import annotations
