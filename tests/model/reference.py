"""Plain readings of the method's equations, to test ``peakzoom.model`` against.

Written from docs/method.md and the paper alone, without a look at the package: float64 NumPy, loops in the order of the
sums in the text, no vectorisation. Slow on purpose; use small shapes. Sections and equations are numbered as there.
"""

from __future__ import annotations

import math

import numpy as np

Array = np.ndarray


# Section 2: class response maps and peaks (Eq. 1-4) ---------------------------------------------------------------


def class_response_maps(features: Array, weight: Array) -> Array:
    """M_s = sum_c W[s, c] X_c (Eq. 1). (B, C, T', h, w), (S, C) -> (B, S, T', h, w)."""
    batch, channels, slices, height, width = features.shape
    classes = weight.shape[0]
    maps = np.zeros((batch, classes, slices, height, width))
    for b in range(batch):
        for s in range(classes):
            for c in range(channels):
                maps[b, s] += float(weight[s, c]) * features[b, c].astype(np.float64)
    return maps


def frame_scores(features: Array, weight: Array, bias: Array) -> Array:
    """y = GAP(slice) W^T + b, for every slice by itself (section 2). -> (B, S, T')."""
    batch, channels, slices, height, width = features.shape
    classes = weight.shape[0]
    scores = np.zeros((batch, classes, slices))
    for b in range(batch):
        for t in range(slices):
            pooled = [
                float(features[b, c, t].astype(np.float64).sum()) / (height * width) for c in range(channels)
            ]
            for s in range(classes):
                scores[b, s, t] = sum(pooled[c] * float(weight[s, c]) for c in range(channels)) + float(
                    bias[s]
                )
    return scores


def softmax(scores: list[float]) -> list[float]:
    """exp(y_s) / sum exp(y), over all S classes."""
    top = max(scores)
    powers = [math.exp(y - top) for y in scores]
    return [p / sum(powers) for p in powers]


def top_k_entropy(scores: Array, k: int = 5) -> Array:
    """H = -sum p log p over the k largest probabilities, natural log, not renormalised (Eq. 2). -> (B, T')."""
    batch, classes, slices = scores.shape
    entropy = np.zeros((batch, slices))
    for b in range(batch):
        for t in range(slices):
            largest = sorted(softmax([float(y) for y in scores[b, :, t]]), reverse=True)[: min(k, classes)]
            entropy[b, t] = -sum(p * math.log(p) for p in largest if p > 0.0)
    return entropy


def response_map(maps: Array, scores: Array, delta: float = 0.2, top: int = 5) -> Array:
    """R = M of the top class where H < delta, else the sum of the top five maps (Eq. 3). -> (B, T', h, w)."""
    batch, classes, slices, height, width = maps.shape
    entropy = top_k_entropy(scores, top)
    response = np.zeros((batch, slices, height, width))
    for b in range(batch):
        for t in range(slices):
            order = sorted(range(classes), key=lambda s: -float(scores[b, s, t]))
            chosen = order[:1] if entropy[b, t] < delta else order[: min(top, classes)]
            for s in chosen:
                response[b, t] += maps[b, s, t].astype(np.float64)
    return response


def normalise(response: Array) -> Array:
    """(R - min) / (max - min) per map; a flat map becomes zeros (Eq. 4). Last two dimensions are a map."""
    result = np.zeros(response.shape)
    for index in np.ndindex(*response.shape[:-2]):
        one = response[index].astype(np.float64)
        low, high = one.min(), one.max()
        if high > low:
            result[index] = (one - low) / (high - low)
    return result


def find_peaks(response: Array) -> Array:
    """A peak equals the maximum of its 3 x 3 window, ties to the first in row-major order, and is not below the mean
    of its map; a flat map has none (section 2)."""
    height, width = response.shape[-2:]
    peaks = np.zeros(response.shape, dtype=bool)
    for index in np.ndindex(*response.shape[:-2]):
        one = response[index].astype(np.float64)
        if one.min() == one.max():
            continue
        mean = one.sum() / (height * width)
        for y in range(height):
            for x in range(width):
                best = one[y, x] >= mean
                for yy in range(max(0, y - 1), min(height, y + 2)):
                    for xx in range(max(0, x - 1), min(width, x + 2)):
                        earlier = (yy, xx) < (y, x)
                        if one[yy, xx] > one[y, x] or (earlier and one[yy, xx] == one[y, x]):
                            best = False
                peaks[index][y, x] = best
    return peaks


def line(position: float, cells: int) -> tuple[int, int, float]:
    """Neighbours and weight of the second one for linear interpolation at a position counted in cells; the edge value
    holds beyond the first and the last cell."""
    position = min(max(position, 0.0), cells - 1.0)
    low = min(math.floor(position), cells - 1)
    high = min(low + 1, cells - 1)
    return low, high, position - low


def place_response(
    response: Array,
    stride: tuple[float, float, float],
    offset: tuple[float, float, float],
    frames: int,
    size: tuple[int, int],
    grid: int,
) -> Array:
    """The raw response on every input frame and on the lines of the attention grid (section 2): cell i looks at pixel
    ``offset + stride i``, slice t' at frame ``offset + stride t'``, grid line j lies on pixel j (H - 1) / (g - 1).

    (B, T', h, w) -> (B, frames, grid, grid); stride and offset in the order t, y, x."""
    batch, slices, height, width = response.shape
    placed = np.zeros((batch, frames, grid, grid))
    for t in range(frames):
        t0, t1, wt = line((t - offset[0]) / stride[0], slices)
        for j in range(grid):
            y0, y1, wy = line((j * (size[0] - 1) / (grid - 1) - offset[1]) / stride[1], height)
            for i in range(grid):
                x0, x1, wx = line((i * (size[1] - 1) / (grid - 1) - offset[2]) / stride[2], width)
                for b in range(batch):
                    value = 0.0
                    for tt, pt in ((t0, 1 - wt), (t1, wt)):
                        for yy, py in ((y0, 1 - wy), (y1, wy)):
                            for xx, px in ((x0, 1 - wx), (x1, wx)):
                                value += pt * py * px * float(response[b, tt, yy, xx])
                    placed[b, t, j, i] = value
    return placed


# Section 3: split and sparse attention (Eq. 5-7) ------------------------------------------------------------------


def split_weights(response: float, mode: str, phi: float) -> tuple[float, float]:
    """How much a peak counts in P_dis and in P_com (Eq. 5): response >= phi goes to P_dis, else to P_com; "expected"
    weights both sets by the probability over phi ~ U(0, 1); "threshold" has phi = 0.5."""
    if mode == "expected":
        return response, 1.0 - response
    if mode == "threshold":
        phi = 0.5
    return (1.0, 0.0) if response >= phi else (0.0, 1.0)


def sparse_attention(
    response: Array,
    peaks: Array,
    phi: Array | None = None,
    mode: str = "expected",
    beta_dis: float = 0.127,
    beta_com: float = 0.424,
    base: float = 0.09,
    faintest: float = 0.0,
) -> tuple[Array, Array]:
    """Q = base + sum of A_i over its set (Eq. 7), A_i = R_i exp(-d^2 / (R_i beta_1^2)) in P_dis and
    (1 / R_i) exp(-d^2 / (R_i beta_2^2)) in P_com (Eq. 6); d between cells as a fraction of the grid side: cells / g, as
    in S3N, whose sigma is theta times the grid's size. All (N, g, g). R here is never tiny.
    ``faintest``, beside the paper: the least that R counts as in A_i."""
    number, height, width = response.shape
    q_dis = np.full(response.shape, base, dtype=np.float64)
    q_com = np.full(response.shape, base, dtype=np.float64)
    for n in range(number):
        for yi in range(height):
            for xi in range(width):
                if not peaks[n, yi, xi]:
                    continue
                r = float(response[n, yi, xi])
                in_dis, in_com = split_weights(r, mode, 0.0 if phi is None else float(phi[n, yi, xi]))
                r = max(r, faintest)
                for y in range(height):
                    for x in range(width):
                        d2 = ((y - yi) / height) ** 2 + ((x - xi) / width) ** 2
                        q_dis[n, y, x] += in_dis * r * math.exp(-d2 / (r * beta_dis**2))
                        q_com[n, y, x] += in_com / r * math.exp(-d2 / (r * beta_com**2))
    return q_dis, q_com


# Section 4: resampling --------------------------------------------------------------------------------------------


def zoom_grid(attention: Array, fwhm: float = 13.0, padding: int = 30) -> Array:
    """u = sum Q k x' / sum Q k over the window (61 x 61 for padding 30) of the map extended by replication, x' = cell /
    (g - 1) also beyond the border, clamped to the frame; as (x, y) in [-1, 1]. (N, g, g) -> (N, g, g, 2)."""
    number, grid, _ = attention.shape
    window = 2 * padding + 1
    kernel = np.zeros((window, window))
    for i in range(window):
        for j in range(window):
            kernel[i, j] = math.exp(
                -4.0 * math.log(2.0) * ((i - padding) ** 2 + (j - padding) ** 2) / fwhm**2
            )
    extended = np.zeros((grid + 2 * padding, grid + 2 * padding))
    place = np.array([(i - padding) / (grid - 1) for i in range(grid + 2 * padding)])
    result = np.zeros((number, grid, grid, 2))
    for n in range(number):
        for y in range(grid + 2 * padding):
            for x in range(grid + 2 * padding):
                inside_y, inside_x = min(max(y - padding, 0), grid - 1), min(max(x - padding, 0), grid - 1)
                extended[y, x] = attention[n, inside_y, inside_x]
        for y in range(grid):
            for x in range(grid):
                mass = extended[y : y + window, x : x + window] * kernel
                total = mass.sum()
                at_x = (mass * place[None, x : x + window]).sum() / total
                at_y = (mass * place[y : y + window, None]).sum() / total
                result[n, y, x] = (2.0 * min(max(at_x, 0.0), 1.0) - 1.0, 2.0 * min(max(at_y, 0.0), 1.0) - 1.0)
    return result


def read_frame(frame: Array, x: float, y: float) -> Array:
    """Bilinear value of (C, H, W) at a position in [-1, 1], corners aligned: -1 is pixel 0, 1 the last pixel."""
    _, height, width = frame.shape
    x0, x1, wx = line((x + 1.0) / 2.0 * (width - 1), width)
    y0, y1, wy = line((y + 1.0) / 2.0 * (height - 1), height)
    upper = (1 - wx) * frame[:, y0, x0] + wx * frame[:, y0, x1]
    lower = (1 - wx) * frame[:, y1, x0] + wx * frame[:, y1, x1]
    return (1 - wy) * upper + wy * lower


def read_axis(frames: int, length: int) -> list[list[tuple[float, float]]]:
    """What each of ``length`` pixels of the result reads of an axis of ``frames`` pixels, nothing being displaced: for
    pixel p its readings as pairs (place in pixels of the result, place in pixels of the frame).

    Pixel p covers the frame from r p to r (p + 1), r = frames / length, where frame pixel i covers i to i + 1 and is
    centred on i + 1/2. A linear reading in the middle of two pixels is their mean, so one reading stands for up to two
    pixels: the stretch is cut in as many equal parts as it takes (one where r <= 2), each read in its middle."""
    ratio = frames / length
    parts = 1
    while ratio / parts > 2.0:
        parts += 1
    readings = []
    for p in range(length):
        one = []
        for k in range(parts):
            middle = (
                p + (k + 0.5) / parts
            )  # of part k of the pixel's stretch, in widths of the result's pixels
            one.append((middle - 0.5, ratio * middle - 0.5))
        readings.append(one)
    return readings


def zoom(frames: Array, grid: Array, size: tuple[int, int] | None = None) -> Array:
    """The frames read where the grid says, by pixel areas. (N, C, H, W), (N, g, g, 2) -> (N, C, *size).

    Line j of the grid lies on pixel j (L - 1) / (g - 1) of the result, which has L. Where the grid reads elsewhere than
    at its own line, it displaces, linearly between the lines; a displacement of 1 is r (L - 1) frame pixels, which is
    how far the result's pixels 0 and L - 1 are apart. Readings are averaged; outside, the frame's border holds."""
    number, channels, height, width = frames.shape
    out_h, out_w = size or (height, width)
    side = grid.shape[1]
    rows, columns = read_axis(height, out_h), read_axis(width, out_w)
    result = np.zeros((number, channels, out_h, out_w))
    for n in range(number):
        frame = frames[n].astype(np.float64)
        for py in range(out_h):
            for px in range(out_w):
                total = np.zeros(channels)
                for qy, fy in rows[py]:
                    for qx, fx in columns[px]:
                        y0, y1, wy = line(qy * (side - 1) / (out_h - 1), side)
                        x0, x1, wx = line(qx * (side - 1) / (out_w - 1), side)
                        dx, dy = 0.0, 0.0
                        for yy, weight_y in ((y0, 1 - wy), (y1, wy)):
                            for xx, weight_x in ((x0, 1 - wx), (x1, wx)):
                                at_x, at_y = (grid[n, yy, xx] + 1.0) / 2.0
                                dx += weight_y * weight_x * (float(at_x) - xx / (side - 1))
                                dy += weight_y * weight_x * (float(at_y) - yy / (side - 1))
                        at_x = fx + dx * width / out_w * (out_w - 1)
                        at_y = fy + dy * height / out_h * (out_h - 1)
                        total += read_frame(
                            frame, 2.0 * at_x / (width - 1) - 1.0, 2.0 * at_y / (height - 1) - 1.0
                        )
                result[n, :, py, px] = total / (len(rows[py]) * len(columns[px]))
    return result


# Section 5: the loss (Eq. 8) --------------------------------------------------------------------------------------


def cross_entropy(logits: Array, target: Array) -> float:
    """Mean over the batch of -log softmax(logits)[target]."""
    total = 0.0
    for b in range(logits.shape[0]):
        total -= math.log(softmax([float(y) for y in logits[b]])[int(target[b])])
    return total / logits.shape[0]


def loss(original: Array, discriminative: Array, complementary: Array, fused: Array, target: Array) -> float:
    """The sum of the four cross-entropies, all with weight 1 (Eq. 8)."""
    return sum(cross_entropy(logits, target) for logits in (original, discriminative, complementary, fused))
