"""Preparing against other tools: they make the same picture of a volume."""

from raypipe.bench.preprocess import MONAI, OURS, SIMPLE_ITK, bench_preprocess


def test_the_tools_agree_on_the_picture() -> None:
    result = bench_preprocess((3, 512, 512), repeats=1)
    gaps = {tool.name: tool.largest_hu_gap for tool in result.tools}
    assert gaps == {OURS: 0.0, MONAI: 0.5, SIMPLE_ITK: 1.0}  # ours and SimpleITK's are rounded
    assert result.ratio(OURS) == 1.0 and result.ratio(MONAI) > 0
