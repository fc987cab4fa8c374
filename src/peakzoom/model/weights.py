"""Public weights into a video network, by name and shape.

The networks in ``model/backbones`` keep the parameter names of the public code they follow, so that its weight files
load. A file is read without running code that it may contain: safetensors, or a PyTorch file of plain tensors.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from peakzoom.utils.errors import UserError
from peakzoom.utils.words import counted

WRAPPINGS = ("state_dict", "model_state", "model")  # keys under which training code keeps the weights
PREFIXES = re.compile(r"((module|model)\.)+")  # of nn.DataParallel and of Lightning
CLASSIFIER = {"fc.weight", "fc.bias"}


def load_weights(network: nn.Module, file: str | Path) -> list[str]:
    """Load a public weight file into a video network.

    The classifier ``fc`` is loaded if the file's has as many classes (whether they are the same classes, a file does
    not say), otherwise it stays as it was made. Everything else has to be there and to fit. The network is changed
    only if all of it does.

    A network may have ``adapt_weights(state) -> state``, which turns another public layout into its own names and
    shapes; ``replaced_head``, the first parts of names of a published head that it has no place for; and
    ``new_parts``, the first parts of names that a public file of its body alone does not have. Where the file has
    nothing of these, they stay as they were made, and so does the classifier, which reads what they make.

    Args:
        network: a :class:`~peakzoom.model.backbones.VideoNetwork`.
        file: .safetensors, or what ``torch.save`` wrote: tensors by name, also under "state_dict" or "model".

    Returns:
        Sentences on what was loaded and what was left out.

    Raises:
        UserError: the file cannot be read without running code, or does not fit the network.
    """
    state, notes = fitting_weights(network, file)
    network.load_state_dict({**network.state_dict(), **state})
    return notes


def fitting_weights(network: nn.Module, file: str | Path) -> tuple[dict[str, Tensor], list[str]]:
    """What :func:`load_weights` loads, by the network's names, and its sentences; the network is not changed.

    The arguments and errors are those of :func:`load_weights`; the network may be without numbers.
    """
    file, own = Path(file), network.state_dict()
    state = read_weights(file)
    if adapt := getattr(network, "adapt_weights", None):
        state = adapt(state)
    notes: list[str] = []
    parts = {_part(name) for name in state}
    if heads := sorted(parts & set(getattr(network, "replaced_head", ()))):
        state = {name: value for name, value in state.items() if _part(name) not in heads}
        notes.append(
            f"{_first(heads)} of {file.name} left out: this network has one classifier in their place"
        )
    elif not CLASSIFIER & state.keys():
        notes.append(f"{file.name} has no classifier: this model's is new")

    new = set(getattr(network, "new_parts", ()))
    new = set() if parts & new else new  # where the file is not of the body alone
    if new:
        notes.append(f"{file.name} has nothing for {_first(sorted(new))}: this model's are new")
    if left_out := _unfit_classifier(own, state, bool(new)):
        notes.append(left_out)
        state = {name: value for name, value in state.items() if name not in CLASSIFIER}
    if not CLASSIFIER & state.keys():
        new.add("fc")
    _check(type(network).__name__, own, state, new, file)
    return state, [f"{counted(len(state), 'tensor')} of {file.name} loaded", *notes]


def _unfit_classifier(own: dict[str, Tensor], state: dict[str, Tensor], new_features: bool) -> str | None:
    """Why a file's classifier is left out, as a sentence; None where it is not."""
    if new_features and CLASSIFIER & state.keys():
        return "the classifier was left out: it was made for other features"
    if "fc.weight" in state and "fc.weight" in own:
        there, here = state["fc.weight"].shape, own["fc.weight"].shape
        if there[0] != here[0] and there[1:] == here[1:]:
            return f"the classifier of {there[0]} classes was left out, this model has {here[0]}"
    return None


def _check(whose: str, own: dict[str, Tensor], state: dict[str, Tensor], new: set[str], file: Path) -> None:
    """UserError if a tensor is unknown to the network, is missing beside its new parts, or has another shape."""
    way_out = "name the --model that the file was made for"
    if unknown := [name for name in state if name not in own]:
        raise UserError(f"{file} is not of this network: {whose} has no {_first(unknown)}; {way_out}")
    missing = [name for name in own if name not in state and _part(name) not in new]
    if missing := [name for name in missing if not name.endswith("num_batches_tracked")]:
        raise UserError(
            f"{file} is not of this network: it lacks {_first(missing)}, which {whose} has; {way_out}"
        )
    if unfit := [name for name, value in state.items() if value.shape != own[name].shape]:
        name = unfit[0]
        raise UserError(
            f"{file} is of another size than this network: {name} is {tuple(state[name].shape)} there and "
            f"{tuple(own[name].shape)} here, and {len(unfit)} of {len(state)} tensors differ so; "
            "use the published width"
        )


def read_weights(file: Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU, without what training code wraps them in and puts before all names.

    Raises:
        UserError: the file cannot be read without running code, or holds other things than tensors.
    """
    if not file.is_file():
        raise UserError(f"{file} is no file; expected weights, .safetensors or what torch.save wrote")
    content = _read_file(file)
    for _ in WRAPPINGS:  # one may hold another
        if isinstance(content, Mapping):
            inner = [content[key] for key in WRAPPINGS if isinstance(content.get(key), Mapping)]
            content = inner[0] if inner else content
    if not isinstance(content, Mapping) or not content:
        raise UserError(
            f"{file} holds a {type(content).__name__}{' without entries' if content == {} else ''}; "
            "expected tensors by name, as state_dict() gives them"
        )
    if odd := [
        key for key, value in content.items() if not (isinstance(key, str) and torch.is_tensor(value))
    ]:
        raise UserError(f"{file} holds {_first(odd)} beside tensors; expected tensors by name alone")
    state: dict[str, Tensor] = {}
    for key, value in content.items():
        name = key[match.end() :] if (match := PREFIXES.match(key)) else key
        if name in state:
            raise UserError(f"{file} has two tensors for {name}; expected the weights of one network")
        state[name] = value
    return state


def _read_file(file: Path) -> Any:
    try:
        if file.suffix == ".safetensors" or _begins_as_safetensors(file):  # an address may end otherwise
            return load_file(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a cut or foreign file raises many kinds, by where the reader stumbles
        if isinstance(error, pickle.UnpicklingError) and "global" in str(error).lower():
            raise UserError(
                f"{file} would run code when read, so it was not; save its state_dict() as .safetensors where you "
                "trust it"
            ) from error
        reason = (str(error).splitlines() or [""])[0].split(". ")[0][:120]
        raise UserError(
            f"{file} cannot be read as weights ({type(error).__name__}: {reason}); get the file again"
        ) from error


def _begins_as_safetensors(file: Path) -> bool:
    """Whether a table in JSON stands behind the eight bytes of its length."""
    with file.open("rb") as stream:
        return stream.read(9)[8:] == b"{"


def _part(name: str) -> str:
    """The first part of a parameter's name: its module in the network."""
    return name.split(".")[0]


def _first(names: Iterable[object]) -> str:
    """The first three, and how many there are."""
    every = list(map(str, names))
    more = f" and {len(every) - 3} more ({len(every)} in all)" if len(every) > 3 else ""
    return ", ".join(every[:3]) + more
