import pytest
import torch

from raypipe.bench import encoder as bench
from raypipe.bench.encoder import bench_encoder, flops_by_part, parts_of
from raypipe.model.encoder import Encoder, StageConfig, paper, small


def _layer(grid: int, stage: StageConfig) -> int:
    """Multiply-adds of one layer: projections, MLP, attention within windows, position."""
    tokens, c = grid * grid, stage.channels
    window = min(stage.window, grid) ** 2
    linear = 4 * c * c + 2 * c * int(c * stage.mlp_ratio)
    return tokens * (linear + 2 * window * c + 9 * c)


def _pathway(grid: int, stage: StageConfig, ratio: int) -> int:
    """Multiply-adds of a pathway: a narrow layer between two projections."""
    narrow = max(16, stage.channels // ratio)
    layer = StageConfig(channels=narrow, layers=1, heads=1, window=stage.window)
    return 2 * grid * grid * stage.channels * narrow + _layer(grid, layer)


def _count(encoder: Encoder) -> dict[str, int]:
    """FLOPs of every part by hand."""
    config = encoder.config
    grid = 256 // config.stem_stride
    out = {"stem": grid * grid * 3 * config.stem_channels * 49}
    width = config.stem_channels
    if config.stem_blocks:
        out["stem blocks"] = config.stem_blocks * 2 * 9 * width**2 * grid * grid
    for i, stage in enumerate(config.stages):
        grid //= 2
        reduce = encoder.stages[i].reduce
        kernel = reduce.kernel_size[0] * reduce.kernel_size[1]
        out[f"stage {i + 1}"] = (
            grid * grid * width * stage.channels * kernel
            + _layer(grid, stage) * stage.layers
            + sum(_pathway(edge, stage, config.pathway_ratio) for edge in config.pathway_grids)
        )
        width = stage.channels
    out["out"] = (grid // 2) ** 2 * width * config.out_channels * 16
    return {part: 2 * count for part, count in out.items()}


@pytest.mark.parametrize("config", [paper(), small()], ids=["paper", "small"])
def test_flops_agree_with_a_count_by_hand(config: object) -> None:
    with torch.device("meta"):
        encoder = Encoder(config)  # type: ignore[arg-type]
    assert flops_by_part(encoder) == _count(encoder)


def test_parts_hold_every_weight() -> None:
    encoder = Encoder(small())
    held = {id(p) for module in parts_of(encoder).values() for p in module.parameters()}
    assert held == {id(p) for p in encoder.parameters()}


def test_shares_follow_from_what_was_measured() -> None:
    before = torch.get_num_threads()
    result = bench_encoder("small", threads=[1], batches=[1, 2], repeats=3)
    assert torch.get_num_threads() == before
    assert [run.batch for run in result.runs] == [1, 2]
    for run in result.runs:
        assert run.gflops == pytest.approx(
            run.batch * result.gflop_per_slice / run.seconds, rel=1e-6
        )
        assert run.peak_share == pytest.approx(run.gflops / run.peak_gflops)
        assert 0.0 < run.peak_share < 1.0
        assert run.best_seconds <= run.seconds
        assert sum(part.time_share for part in run.parts) == pytest.approx(1.0)
        assert sum(part.flop_share for part in run.parts) == pytest.approx(1.0)


def test_of_two_passes_the_median_is_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = iter([1.0, 3.0])
    monkeypatch.setattr(bench, "_seconds", lambda work: next(passes))
    monkeypatch.setattr(bench, "peak_gflops", lambda: 1e6)
    (run,) = bench_encoder("small", threads=[1], batches=[1], repeats=2).runs
    assert (run.seconds, run.best_seconds) == (2.0, 1.0)
