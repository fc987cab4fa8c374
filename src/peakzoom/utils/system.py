"""What the system refused, as one sentence: which path, why, and the way out.

An error of the system may be raised by Python, or be told in words alone by a writer in another language: "I/O error:
Read-only file system (os error 30)".
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from peakzoom.utils.errors import UserError, WorkerGone, first_line, printable

# No room, none left to this user, none in a file of this length.
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_IN_WORDS = re.compile(r"\bos error (\d+)\b")
_FULL = re.compile(re.escape(os.strerror(errno.ENOSPC)), re.I)
_SHARED = re.compile(r"<?/torch_\w+>?|shared memory", re.I)  # of PyTorch's files there
RIGHTS = "name another place, or ask for the right to use this one"
WAYS_OUT = {
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), RIGHTS),
    **dict.fromkeys((errno.ENAMETOOLONG, errno.EINVAL), "give it another, shorter name"),
    **dict.fromkeys((errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP), "name another place"),
    **dict.fromkeys(
        (errno.EMFILE, errno.ENFILE), "allow more open files (ulimit -n), or use fewer --workers"
    ),
    errno.EILSEQ: "give it a name in UTF-8",
    errno.ENOENT: "look at how it is spelled, or make its folder first",
}
# What PyTorch says of a loader process that is gone, wherever the program is just then.
_GONE = re.compile(r"DataLoader worker \(pid.*?((?:is )?killed by signal: \w[\w ]*|exited unexpectedly)")
LOADER_NEEDS = "if memory or room in /dev/shm is short, --workers 1 needs less of it and --workers 0 none"
LOOK = "look at that disk, then run it again"


def system_error(error: BaseException) -> OSError | None:
    """The error of the system that an error is, was raised from, or tells of in words; None where there is none."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError):
            return seen
        if isinstance(seen, UnicodeEncodeError) and seen.reason.startswith("surrogates"):
            return OSError(errno.EILSEQ, "its name is not UTF-8", seen.object)
        if not isinstance(seen, UserError) and (told := _told(str(seen))):
            return told
        seen = seen.__cause__  # not its context: a mistake of ours while an error is handled is one
    return None


def _told(text: str) -> OSError | None:
    """The error of the system that a text tells of."""
    if found := _IN_WORDS.search(text):
        return OSError(int(found[1]), os.strerror(int(found[1])))
    if not _FULL.search(text):
        return None
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if _SHARED.search(text):
        full.filename = "/dev/shm"
    return full


def worker_gone(error: BaseException) -> WorkerGone | None:
    """One sentence, where PyTorch says that a process that loads clips was killed or ended; None for another error."""
    found = _GONE.search(str(error)) if isinstance(error, RuntimeError) else None
    if found is None:
        return None
    return WorkerGone(f"a process that loads clips {found[1].removeprefix('is ')}: {LOADER_NEEDS}")


def named(error: OSError) -> Path | None:
    """The path that an error of the system is about, where it says so."""
    name = error.filename2 or error.filename
    return Path(os.fsdecode(name)) if isinstance(name, str | bytes | os.PathLike) and name else None


def reason_of(error: OSError) -> str:
    """Why, in a few words without a capital."""
    reason = error.strerror or first_line(error)
    return printable(reason[:1].lower() + reason[1:])


def sentence(error: OSError) -> str:
    """One sentence on an error of the system that is no full disk."""
    path, way_out = named(error), WAYS_OUT.get(error.errno or 0, LOOK)
    if path is None:
        return f"the system refused to go on ({reason_of(error)}): {way_out}"
    return f"{printable(path)} cannot be used ({reason_of(error)}): {way_out}"


def expect_place(path: Path, utf8: bool = False) -> None:
    """Refuse a file or folder that nothing could be written to, before the work and not after it.

    Args:
        path: which; it need not be there, nor the folders on the way to it.
        utf8: refuse a name that is not UTF-8, for writers that take no other.

    Raises:
        UserError: the name is too long or not UTF-8, a file lies on the way, or nobody may write there.
    """
    here = path.absolute()
    try:
        if utf8:
            str(path).encode()
        while not _is_there(here):
            here = here.parent
    except (OSError, UnicodeEncodeError) as error:
        found = system_error(error)
        assert found is not None
        raise UserError(sentence(OSError(found.errno, found.strerror, str(path)))) from error
    folder = here if here.is_dir() else here.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        number = errno.EROFS if _is_read_only(folder) else errno.EACCES
        raise UserError(sentence(OSError(number, os.strerror(number), str(folder))))


def _is_there(path: Path) -> bool:
    """Whether a file or folder is; OSError where its name cannot be one, or a file lies on the way to it."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    return True


def _is_read_only(folder: Path) -> bool:
    """Whether a file system is mounted so."""
    return hasattr(os, "statvfs") and bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
