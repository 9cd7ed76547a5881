"""Predicts the step of G5 on machines that are not here, by arithmetic: `docs/scaling.md` says what it leaves out.

    python benchmarks/step_time.py                                   # 4 machines × 8 GPUs, 16 images each
    python benchmarks/step_time.py --image_ms 7.5 --link_gbit 25     # with what you measured

Printed are, for each time of an image and each link, the seconds of a step and the share of them that computes, with
gradients in float32 and in float16.
"""

import argparse

TRAINABLE, OTHERS = 95_366_600, 361_318
"""Numbers in the weights of G5 with 1000 classes, and in its moving statistics."""


def sum_seconds(count: int, replicas: int, bandwidth: float) -> float:
    """Of a ring: `count` bytes, and bytes a second in each direction over its slowest link."""
    return 2 * (replicas - 1) / replicas * count / bandwidth


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image_ms", type=float, nargs="+", default=[30, 10, 3], help="of one image on one device")
    parser.add_argument("--update_ms", type=float, default=0.0, help="of the optimizer, a step")
    parser.add_argument("--batch_size", type=int, default=16, help="images of a device")
    parser.add_argument("--machines", type=int, default=4)
    parser.add_argument("--devices", type=int, default=8, help="of a machine")
    parser.add_argument("--link_gbit", type=float, nargs="+", default=[10, 25, 100], help="Gbit/s of the slowest link")
    settings = parser.parse_args()
    replicas = settings.machines * settings.devices
    print(
        f"G5, {settings.machines} machines × {settings.devices} devices, {settings.batch_size} images each, "
        f"{replicas * settings.batch_size} in all"
    )
    names = ("an image, ms", "link, Gbit/s", "compute, s")
    columns = [f"{dtype}: {name}" for dtype in ("float32", "float16") for name in ("sum, s", "step, s", "share")]
    print(f"| {' | '.join((*names, *columns))} |")
    print(f"|{' --- |' * (len(names) + len(columns))}")
    for image_ms in settings.image_ms:
        compute = (settings.batch_size * image_ms + settings.update_ms) / 1000
        for link in settings.link_gbit:
            cells = [f"{image_ms:g}", f"{link:g}", f"{compute:.3f}"]
            for size in (4, 2):
                count = size * TRAINABLE + 4 * OTHERS
                seconds = sum_seconds(count, replicas, link / 8 * 1e9)
                cells += [f"{seconds:.3f}", f"{compute + seconds:.3f}", f"{compute / (compute + seconds):.2f}"]
            print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
