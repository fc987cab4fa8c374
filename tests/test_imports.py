"""Imports stand at the top of a file, but for those below: each inside a function, with the reason.

In ``cli`` they are everywhere, and in ``peakzoom/__init__.py``, because help and the package itself must come at once.
"""

from __future__ import annotations

import ast
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src" / "peakzoom"

EXPORT, RAY, MATPLOTLIB = "extra export", "extra ray", "extra train, which brings matplotlib"
SKLEARN = "extra train, which brings scikit-learn"
QUIET = "imported by guard_child when nothing that it prints can come between results"
SLOW = "help and the process that decodes need none"
LAZY: dict[str, dict[str, str]] = {
    "__main__.py": {
        "peakzoom.cli": "takes half a second, in which Ctrl-C is to be heard",
        "signal": "takes milliseconds, in which Ctrl-C is to be heard",
    },
    "apps/batch/cluster.py": {"ray": RAY, "ray.data": RAY},
    "apps/batch/label.py": {"pyarrow": RAY, "ray": RAY},
    "apps/batch/listing.py": {"fsspec": RAY},
    "apps/batch/table.py": {"pyarrow": RAY, "pyarrow.compute": RAY, "pyarrow.parquet": RAY},
    "apps/serve/server.py": {"peakzoom.apps.serve.page": "extra serve; the API alone needs no Gradio"},
    "apps/serve/service.py": {"peakzoom.explanation.write": MATPLOTLIB},
    "data/archives.py": {"rarfile": "extra train; zip and tar archives need none"},
    "data/workers.py": {"resource": "not on Windows"},
    "evaluation/files.py": {"peakzoom.display.figures": f"{MATPLOTLIB}; model cards only read"},
    "evaluation/report/thresholds.py": {"sklearn.metrics": SKLEARN},
    "evaluation/shortcuts.py": {
        "sklearn.cluster": SKLEARN,
        "sklearn.linear_model": SKLEARN,
        "sklearn.model_selection": SKLEARN,
        "sklearn.pipeline": SKLEARN,
        "sklearn.preprocessing": SKLEARN,
    },
    "explanation/__init__.py": {"peakzoom.explanation": MATPLOTLIB, "peakzoom.explanation.draw": MATPLOTLIB},
    "explanation/look.py": {"peakzoom.explanation.write": MATPLOTLIB},
    "inference/engines/build.py": {
        "peakzoom.inference.engines.onnx": EXPORT,
        "peakzoom.inference.engines.openvino": EXPORT,
    },
    "inference/export.py": {
        "peakzoom.inference.engines.onnx": EXPORT,
        "peakzoom.inference.engines.openvino": EXPORT,
    },
    "inference/prediction.py": {"peakzoom.display.figures": MATPLOTLIB},
    "model/backbones/timesformer.py": {"transformers": "extra transformers"},
    "model/backbones/torchvision_nets.py": {"torchvision.models": "used where it is installed"},
    "model/backbones/videomae.py": {"transformers": "extra transformers"},
    "model/backbones/vivit.py": {"transformers": "extra transformers"},
    "model/backbones/vjepa2.py": {"transformers": "extra transformers"},
    "training/batch_augment.py": {"kornia.augmentation": "extra finetune"},
    "training/loggers.py": {"mlflow": "extra loggers", "wandb": "extra loggers"},
    "training/lora.py": {"peft": "extra finetune", "peft.tuners.tuners_utils": "extra finetune"},
    "utils/lock.py": {"filelock": f"{SLOW}: it imports asyncio"},
    "utils/progress.py": {"rich.console": SLOW, "tqdm.auto": SLOW},
    "video/guard_child.py": {
        "peakzoom.video.faults": QUIET,
        "peakzoom.video.holding": QUIET,
        "resource": "not on Windows",
    },
    "video/messages.py": {"torch": "the process that decodes needs none unless its work does"},
}


def imported_in_functions(text: str) -> set[str]:
    """The modules that a file imports inside its functions."""
    functions = (
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    )
    found: set[str] = set()
    for node in (inner for function in functions for inner in ast.walk(function)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." * node.level + (node.module or ""))
    return found


def test_each_import_inside_a_function_has_its_reason() -> None:
    files = {file.relative_to(SOURCE).as_posix(): file for file in SOURCE.rglob("*.py")}
    lazy = {
        name: found
        for name, file in files.items()
        if not name.startswith("cli/") and name != "__init__.py"
        if (found := imported_in_functions(file.read_text(encoding="utf-8")))
    }
    assert lazy == {name: set(reasons) for name, reasons in LAZY.items()}


def test_an_import_inside_a_function_is_found() -> None:
    text = "import os\ndef f():\n    if True:\n        import a.b\n        from c import d\n"
    assert imported_in_functions(text) == {"a.b", "c"}
