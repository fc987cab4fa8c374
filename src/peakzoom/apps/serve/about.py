"""What the page tells of the model: its classes, what its scores are means of, and how far they can be relied on."""

from __future__ import annotations

from peakzoom.apps.serve.service import Service
from peakzoom.inference.prediction import MEASURES, NONE
from peakzoom.utils.errors import printable
from peakzoom.utils.words import counted


def averaged(service: Service) -> str:
    """What a score is the mean of; where `peakzoom predict` takes other views, its scores are not these."""
    here, usual = service.views, service.recognizer.choose_views(None)
    said = f"Scores are means over {counted(here.clips * here.crops, 'view')} of a video"
    if here == usual:
        return f"{said}, as those of 'peakzoom predict'."
    return (
        f"{said}; 'peakzoom predict' takes {usual.clips * usual.crops}, so that its scores differ a little. This page "
        f"gives the same when it is started with --num-clips {usual.clips} --crops {usual.crops}, and takes longer."
    )


def _meant(service: Service) -> str:
    """How far a score can be relied on."""
    if service.recognizer.multi_label:
        return "Scores are of each class by itself and are not calibrated."
    found = service.recognizer.temperature
    if found is None:
        return "Scores add up to 1 and are not calibrated: `peakzoom calibrate`, then `--calibrated`, makes them so."
    return (
        f"Scores add up to 1; fused ones are at the temperature {found.temperature:.2g}, which `peakzoom calibrate` "
        "has found, and come closer to how often such a prediction is right."
    )


def _named(service: Service) -> str:
    """When it names a class."""
    if service.recognizer.multi_label:
        return "It names each that reaches its own threshold: several, one or none."
    found = service.recognizer.rejection
    if found is None:
        return "It names one of them whatever it sees."
    return (
        f"It says {NONE} where the {MEASURES[found.measure]} of its prediction is below {found.threshold:.4g}, which "
        "`peakzoom calibrate --reject` has chosen."
    )


def about(service: Service) -> str:
    """The page's last tab, in Markdown."""
    classes, pre = service.recognizer.classes, service.recognizer.preprocess
    names = ", ".join(f"`{printable(name).replace('`', chr(39))}`" for name in classes)
    views = service.views.clips * service.views.crops
    return (
        f"The model knows {counted(len(classes), 'class')}: {names}. {_named(service)}\n\n"
        f"It looks at clips of {counted(pre.frames, 'frame')} of {pre.size} x {pre.size} pixels, "
        f"{counted(views, 'view')} of a video. "
        f"{_meant(service)}\n\n"
        f"What you send stays on this server and is removed after {service.limits.minutes} minutes. "
        f"[peakzoom](https://doi.org/10.1155/2022/5094801) follows Zhou, Li, Wang and Li (2022)."
    )
