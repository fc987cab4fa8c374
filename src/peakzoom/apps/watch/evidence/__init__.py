"""Evidence of events, for a person who must decide (docs/watch.md): ``peakzoom watch --evidence DIR``.

Reads in this order: ``recorder.py`` hears what the watch hears, and has every event recorded by a thread of its own.
``trace.py`` knows when each frame was shown and which packet it came out of, ``lately.py`` keeps what cannot be read
again; ``clip.py`` cuts a clip out of them, ``exhibit.py`` draws the figure and writes the peaks, ``folder.py`` keeps
all of it and overwrites nothing, ``page.py`` makes ``index.html``. ``identity.py`` says what was watched, and by what.
"""

from __future__ import annotations
