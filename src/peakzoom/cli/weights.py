"""``peakzoom weights``: what comes with the package to start a training from."""

from __future__ import annotations

from peakzoom.cli.console import print_result, show_table


def weights() -> None:
    """List the weights that come with peakzoom, trained on generated clips only: `train` starts from them.

    Examples: `peakzoom weights`, then `peakzoom train clips/ --model tcnn_xs_local --out runs/first`
    """
    from peakzoom.model.starts import LICENCE, starts

    rows = [
        (
            start.name,
            start.network,
            f"{start.width:g}",
            f"{start.parameters / 1e6:.2f}",
            f"{start.file.stat().st_size / 1e6:.1f}",
            f"{start.card['clips']:,}",
            f"{start.card['accuracy']:.1f}%",
        )
        for start in starts()
    ]
    columns = ("--init", "network", "width", "weights\n(M)", "MB", "clips", "top-1")
    show_table(f"Start weights, licence {LICENCE}", columns, rows)
    card = starts()[0].card
    shown = " or ".join(map(str, sorted({start.card["shown"] for start in starts()})))
    print_result(
        f"clips: generated ones that it was trained on, each shown {shown} times.\n"
        f"top-1: on {card['tests']:,} further ones of the same {card['classes']} classes.\n"
        "licence: that of peakzoom. Nobody was filmed, and no data set's licence hangs on\n"
        "these weights.\n"
        "'peakzoom train' starts from those that fit --model, width, and mean and std of\n"
        "the pixels; --init none trains from scratch."
    )
