"""The reliability diagram of Guo et al. 2017 (arXiv:1706.04599), Fig. 1, as SVG in the colours of its page."""

import numpy as np

from polynet_keras.basics.names import number_of
from polynet_keras.evaluation.metrics import CALIBRATION_BINS, Counts

LEFT, TOP, WIDTH, HEIGHT = 55, 10, 410, 260
"""Place of the diagram in the picture, in pixels; the counts are below it."""
COUNTS_TOP, COUNTS_HEIGHT = 290, 60
AXIS = "stroke:var(--line)"


def reliability_diagram(counts: Counts) -> str:
    """Returns the `<svg>` element: the accuracy of each bin, the gap to its mean probability, and its number of images.

    It uses the CSS variables `--accent`, `--wrong`, `--line` and `--faint`.
    """
    parts = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        x, y = _x(share), _y(share)
        parts += [
            f'<path d="M{LEFT} {y:.1f}H{LEFT + WIDTH}" style="{AXIS}"/>',
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{share:g}</text>',
            f'<text x="{x:.1f}" y="{COUNTS_TOP + COUNTS_HEIGHT + 15}" text-anchor="middle">{share:g}</text>',
        ]
    fullest = max(1, counts.bin_images.max())
    parts += [_bin(counts, number, fullest) for number in np.flatnonzero(counts.bin_images).tolist()]
    middle, bottom = LEFT + WIDTH / 2, COUNTS_TOP + COUNTS_HEIGHT
    return "\n".join(
        (
            f'<svg viewBox="0 0 480 {bottom + 40}" role="img" aria-label="reliability diagram">',
            *parts,
            f'<path d="M{_x(0)} {_y(0)}L{_x(1)} {_y(1)}" style="stroke:var(--faint);stroke-dasharray:4 4"/>',
            f'<path d="M{LEFT} {bottom}H{LEFT + WIDTH}" style="{AXIS}"/>',
            f'<text x="{LEFT - 6}" y="{COUNTS_TOP + 10}" text-anchor="end">{fullest:,}</text>',
            f'<text x="{LEFT - 6}" y="{bottom}" text-anchor="end">images</text>',
            f'<text x="{middle}" y="{bottom + 33}" text-anchor="middle">probability of the predicted class</text>',
            f'<text transform="translate(14 {TOP + HEIGHT / 2}) rotate(-90)" text-anchor="middle">accuracy</text>',
            "</svg>",
        )
    )


def _bin(counts: Counts, number: int, fullest: int) -> str:
    images, hits = counts.bin_images[number], counts.bin_hits[number]
    accuracy, confidence = hits / images, counts.bin_confidence[number] / images
    low, high = number / CALIBRATION_BINS, (number + 1) / CALIBRATION_BINS
    x, width = f"{_x(low) + 1:.1f}", f"{WIDTH / CALIBRATION_BINS - 2:.1f}"
    gap_top = max(accuracy, confidence)
    gap = abs(accuracy - confidence)
    count = COUNTS_HEIGHT * images / fullest
    return (
        f"<g><title>probability {low:.2f} to {high:.2f}, mean {confidence:.3f}: "
        f"{hits:,} of {number_of(images, 'image')} right, {accuracy:.3f}</title>"
        f'<rect x="{x}" y="{_y(accuracy):.1f}" width="{width}" height="{HEIGHT * accuracy:.1f}" '
        'style="fill:var(--accent)"/>'
        f'<rect x="{x}" y="{_y(gap_top):.1f}" width="{width}" height="{HEIGHT * gap:.1f}" '
        'style="fill:var(--wrong);fill-opacity:0.8"/>'
        f'<rect x="{x}" y="{COUNTS_TOP + COUNTS_HEIGHT - count:.1f}" width="{width}" height="{count:.1f}" '
        'style="fill:var(--faint)"/></g>'
    )


def _x(probability: float) -> float:
    return LEFT + WIDTH * probability


def _y(accuracy: float) -> float:
    return TOP + HEIGHT * (1 - accuracy)
