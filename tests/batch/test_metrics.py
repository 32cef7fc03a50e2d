"""The dashboard draws what the code measures, and all of it."""

import json
import re
from pathlib import Path

from raypipe.batch import metrics

DASHBOARD = Path(__file__).resolve().parents[2] / "configs" / "grafana" / "run.json"


def test_every_metric_of_the_dashboard_exists_and_every_one_is_drawn() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    queries = " ".join(target["expr"] for panel in panels for target in panel["targets"])
    drawn = set(re.findall(r"ray_(raypipe_\w+)", queries))
    histogram = {f"{metrics.STAGE_SECONDS}_{part}" for part in ("bucket", "sum", "count")}
    assert drawn <= (metrics.NAMES | histogram) - {metrics.STAGE_SECONDS}
    assert drawn - histogram == metrics.NAMES - {metrics.STAGE_SECONDS}
    assert drawn & histogram


def test_labels_of_the_dashboard_are_tags_of_the_metric() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    for panel in panels:
        for target in panel["targets"]:
            (name,) = re.findall(r"ray_(raypipe_\w+)", target["expr"])
            name = re.sub(r"_(bucket|sum|count)$", "", name)
            used = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert used <= set(metrics.tags_of(name)), panel["title"]


def test_panels_do_not_lie_over_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and place["x"] + place["w"] <= 24
        taken |= cells
