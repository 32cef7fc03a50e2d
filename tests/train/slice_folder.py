"""A folder of class-labelled pictures that a small network tells apart in a few steps."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

BLOBS = {"Cyst": (70, 15), "Normal": (0, 0), "Stone": (255, 3), "Tumor": (190, 18)}
"""Class -> grey and radius of what lies in the right kidney."""


def write_folder(folder: Path, classes: Sequence[str], runs: Sequence[range]) -> Path:
    """One body a run, seen at as many levels as the run has numbers."""
    y, x = np.mgrid[:256, :256].astype(np.float64)
    for label, name in enumerate(classes):
        grey_of, radius = BLOBS[name]
        (folder / name).mkdir(parents=True)
        for number, run in enumerate(runs):
            rng = np.random.default_rng([label, number])
            width, height = rng.uniform(70, 90), rng.uniform(50, 65)
            for level in run:
                body = ((x - 128) / width) ** 2 + ((y - 120) / height) ** 2 < 1
                picture = 90.0 * body + rng.normal(0, 3, body.shape) * body
                for side in (-1, 1):
                    kidney = np.hypot(x - 128 - side * 0.5 * width, y - 130) < 14
                    picture[kidney] = 140
                blob = np.hypot(x - 128 - 0.5 * width, y - 130) < radius
                picture[blob] = grey_of
                grey = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
                grey.save(folder / name / f"{name}- ({level}).png")
    return folder
