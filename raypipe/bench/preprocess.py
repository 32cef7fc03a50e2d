"""THE preprocessing against MONAI's transforms and SimpleITK's resampling, to the same grid.

In: sizes. Out: seconds of each for one volume, and how far their HU are from ours.
Does not know: how a volume is prepared.

Each takes the volume as it was read (int16, z-y-x) to the networks' grid and to three HU windows as
float32 channels. MONAI averages areas as we do; SimpleITK interpolates linearly, which is less work
and another picture where a slice shrinks.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from raypipe.allocator import keep_freed_memory
from raypipe.bench.machine import machine
from raypipe.errors import ConfigError
from raypipe.model.detector import window_channels
from raypipe.phantom import PhantomSpec, make_phantom
from raypipe.settings import Settings
from raypipe.types import Volume
from raypipe.volume.preprocess import PreprocessConfig, preprocess

OURS, MONAI, SIMPLE_ITK = "raypipe", "MONAI", "SimpleITK"
Prepared = tuple[NDArray[Any], NDArray[np.float32]]
"""HU (z, y, x) on the networks' grid, and its windows (z, 3, y, x), 0..1."""


class ToolResult(Settings):
    """One tool."""

    name: str
    seconds: float = Field(description="median")
    runs_s: tuple[float, ...]
    largest_hu_gap: float = Field(description="from ours")
    mean_hu_gap: float


class PreprocessResult(Settings):
    """All tools on one volume."""

    shape_zyx: tuple[int, int, int]
    size_yx: tuple[int, int]
    tools: tuple[ToolResult, ...]
    machine: dict[str, str | int]

    def ratio(self, name: str) -> float:
        """Time of a tool over ours."""
        seconds = {tool.name: tool.seconds for tool in self.tools}
        return seconds[name] / seconds[OURS]


def bench_preprocess(shape_zyx: tuple[int, int, int], repeats: int) -> PreprocessResult:
    """Time the tools in turn on one thread, each after a pass that warms it up.

    Raises:
        ConfigError: MONAI or SimpleITK is not installed.
    """
    _, y, x = shape_zyx
    spec = PhantomSpec(shape_zyx=shape_zyx, spacing_zyx_mm=(5.0, 380.0 / y, 380.0 / x), seed=5)
    volume = make_phantom(spec).volume
    config = PreprocessConfig()
    tools: dict[str, Callable[[], Prepared]] = {
        OURS: lambda: _ours(volume, config),
        MONAI: _monai(volume, config),
        SIMPLE_ITK: _simple_itk(volume, config),
    }
    keep_freed_memory()  # as the stages do; it holds for all tools
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        own = tools[OURS]()[0].astype(np.float64)
        results = tuple(_timed(name, work, own, repeats) for name, work in tools.items())
    finally:
        torch.set_num_threads(threads)
    return PreprocessResult(
        shape_zyx=shape_zyx, size_yx=config.size_yx, tools=results, machine=machine()
    )


def _timed(
    name: str, work: Callable[[], Prepared], own: NDArray[np.float64], repeats: int
) -> ToolResult:
    gap = np.abs(work()[0].astype(np.float64) - own)
    runs = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        runs.append(time.perf_counter() - started)
    return ToolResult(
        name=name,
        seconds=statistics.median(runs),
        runs_s=tuple(runs),
        largest_hu_gap=float(gap.max()),
        mean_hu_gap=float(gap.mean()),
    )


def _ours(volume: Volume, config: PreprocessConfig) -> Prepared:
    hu = preprocess(volume, config).hu
    stack = torch.from_numpy(hu)[:, None].expand(-1, 3, -1, -1)  # a slice as its own neighbours
    return hu, window_channels(stack, config.windows, 1).numpy()


def _monai(volume: Volume, config: PreprocessConfig) -> Callable[[], Prepared]:
    try:
        from monai import transforms
    except ImportError as error:
        raise _missing("monai") from error
    t: Any = transforms
    size = (volume.hu.shape[0], *config.size_yx)
    resize = t.Compose(
        [
            t.EnsureChannelFirst(channel_dim="no_channel"),
            t.EnsureType(dtype=torch.float32),
            t.Resize(size, mode="area"),
        ]
    )
    windows = [t.ScaleIntensityRange(w.low_hu, w.high_hu, 0, 1, clip=True) for w in config.windows]

    def work() -> Prepared:
        resized = resize(volume.hu)
        channels = torch.stack([window(resized[0]) for window in windows], dim=1)
        return np.asarray(resized[0]), np.asarray(channels, np.float32)

    return work


def _simple_itk(volume: Volume, config: PreprocessConfig) -> Callable[[], Prepared]:
    try:
        import SimpleITK
    except ImportError as error:
        raise _missing("SimpleITK") from error
    sitk: Any = SimpleITK
    depth, rows, columns = volume.hu.shape
    step_y, step_x = rows / config.size_yx[0], columns / config.size_yx[1]
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)

    def work() -> Prepared:
        image = sitk.GetImageFromArray(volume.hu)
        resample = sitk.ResampleImageFilter()
        resample.SetSize((config.size_yx[1], config.size_yx[0], depth))
        resample.SetOutputSpacing((step_x, step_y, 1.0))
        resample.SetOutputOrigin(((step_x - 1) / 2, (step_y - 1) / 2, 0.0))
        resample.SetInterpolator(sitk.sitkLinear)
        small = resample.Execute(image)
        channels = [
            sitk.GetArrayFromImage(
                sitk.IntensityWindowing(
                    sitk.Cast(small, sitk.sitkFloat32),
                    *(w.low_hu, w.high_hu, 0.0, 1.0),
                )
            )
            for w in config.windows
        ]
        return sitk.GetArrayFromImage(small), np.stack(channels, axis=1)

    return work


def _missing(package: str) -> ConfigError:
    return ConfigError(
        f"bench preprocess: {package} must be installed to compare with: pip install {package}"
    )
