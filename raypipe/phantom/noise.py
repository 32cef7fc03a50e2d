"""Image noise as a scanner makes it: correlated by the reconstruction kernel, with streaks.

In: float32 HU (z, y, x) without noise. Out: a field to add.
Does not know: organs.
"""

from typing import Any, Literal

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.floating[Any]]
Kernel = Literal["soft", "standard", "sharp"]

_CUTOFF_PER_MM = {"soft": 0.28, "standard": 0.42, "sharp": 0.75}


def kernel_noise(
    shape_zyx: tuple[int, int, int], pixel_mm: float, kernel: Kernel, rng: np.random.Generator
) -> Array:
    """Noise of unit deviation whose power follows a ramp times the kernel's roll-off.

    Source: Riederer, Pelc, Chesler, "The noise power spectrum in computed X-ray tomography",
    Phys Med Biol 23 (1978).
    """
    _, ny, nx = shape_zyx
    fy = scipy.fft.fftfreq(ny, pixel_mm)[:, None]
    fx = scipy.fft.rfftfreq(nx, pixel_mm)[None, :]
    f = np.hypot(fy, fx)
    gain = np.sqrt(f + 0.02) * np.exp(-((f / _CUTOFF_PER_MM[kernel]) ** 2))
    white = rng.standard_normal(shape_zyx, np.float32)
    spectrum = scipy.fft.rfft2(white, axes=(1, 2))
    spectrum *= gain.astype(np.float32)
    noise = scipy.fft.irfft2(spectrum, s=(ny, nx), axes=(1, 2))
    noise /= max(float(noise.std()), 1e-6)
    return np.asarray(noise, np.float32)


def noise_scale(hu: Array) -> Array:
    """Where noise is strong: deep in dense tissue, weak in air; mean 1 inside the body.

    Worked out on a sixteenth of the pixels, since it varies slowly.
    """
    step = max(1, min(hu.shape[1:]) // 64)
    dense = np.clip(hu[:, ::step, ::step] + 1000, 0, 1700) / 1000
    blurred = ndimage.uniform_filter(dense, size=(1, 15, 15))
    row = dense.mean(axis=2, keepdims=True)
    path = 0.2 + 0.65 * blurred + 0.45 * row
    body = dense > 0.5
    path /= max(float(path[body].mean()) if body.any() else 1.0, 1e-3)
    tall = np.repeat(np.repeat(path, step, axis=1), step, axis=2)
    return np.asarray(tall[:, : hu.shape[1], : hu.shape[2]], np.float32)


def streaks(hu: Array, rng: np.random.Generator, strength_hu: float) -> Array:
    """Horizontal photon-starvation streaks where rows cross much bone (shoulders, hips)."""
    dense = np.clip(hu - 150, 0, 900).mean(axis=2, keepdims=True)
    draw = rng.standard_normal(hu.shape[:2], np.float32)[:, :, None]
    wide = ndimage.gaussian_filter1d(rng.standard_normal((*hu.shape[:2], 12)), 1.0, axis=2)
    lines = np.repeat(wide, -(-hu.shape[2] // 12), axis=2)[:, :, : hu.shape[2]]
    lines = ndimage.uniform_filter1d(lines, max(3, hu.shape[2] // 10), axis=2)
    amount = np.clip(dense / 60.0, 0, 1.5) * strength_hu
    return np.asarray((0.7 * draw + lines) * amount * (hu > -950), np.float32)
