import pytest

from raypipe.findings.decode import FindingsConfig, decode
from raypipe.findings.link import link, one_label_each
from raypipe.geometry import Box
from raypipe.types import Detection


def detection(
    z: int, y: float, x: float, size: float, score: float, label: str = "liver_cyst"
) -> Detection:
    half = size / 2
    box = Box(lower_zyx=(z, y - half, x - half), upper_zyx=(z + 1, y + half, x + half))
    return Detection(label=label, box_zyx=box, score=score)


CONFIG = FindingsConfig(slice_floor=0.1, max_gap_slices=1, aggregate_slices=2, least_extent_mm=0)


def test_overlapping_boxes_of_one_label_merge_and_the_best_stays() -> None:
    near = [detection(3, 50, 50, 20, 0.6), detection(3, 52, 51, 20, 0.9)]
    kept = decode(near, CONFIG)
    assert [d.score for d in kept[3]] == [0.9]


def test_boxes_apart_or_of_other_labels_stay() -> None:
    kept = decode(
        [
            detection(3, 50, 50, 20, 0.6),
            detection(3, 90, 50, 20, 0.5),
            detection(3, 58, 58, 20, 0.7, "liver_mass"),
            detection(3, 50, 50, 20, 0.05, "renal_cyst"),
        ],
        CONFIG,
    )
    assert [d.score for d in kept[3]] == [0.7, 0.6, 0.5]


def test_labels_compete_with_the_whole_lesion_not_slice_by_slice() -> None:
    mass = {1: 0.7, 2: 0.3}  # better than the cyst on one slice, worse over all
    slices = decode(
        [detection(z, 50, 50, 20, 0.6) for z in range(4)]
        + [detection(z, 50, 50, 20, score, "liver_mass") for z, score in mass.items()],
        CONFIG,
    )
    assert [d.label for d in slices[1]] == ["liver_mass", "liver_cyst"]
    tracks = link(slices, CONFIG, 5.0)
    assert len(tracks) == 2
    config = CONFIG.model_copy(update={"cross_label_iou": 0.4})
    assert [t.label for t in one_label_each(tracks, config)] == ["liver_cyst"]
    strict = CONFIG.model_copy(update={"cross_label_iou": 0.9})
    assert len(one_label_each(tracks, strict)) == 2


def test_lesions_of_one_label_or_apart_do_not_compete() -> None:
    boxes = [detection(0, 50, 50, 20, 0.6), detection(0, 90, 50, 20, 0.5, "liver_mass")]
    tracks = link(decode(boxes, CONFIG), CONFIG, 5.0)
    assert one_label_each((tracks[0], *tracks), CONFIG) == (tracks[0], tracks[0], tracks[1])


def test_a_box_counts_with_the_lesion_that_it_belongs_to() -> None:
    scores = {0: 0.8, 1: 0.8, 2: 0.2}
    slices = decode([detection(z, 50, 50, 20, s) for z, s in scores.items()], CONFIG)
    (track,) = link(slices, CONFIG, 5.0)
    assert track.score == pytest.approx(0.8)
    assert [d.score for d in track.in_context] == pytest.approx([0.8, 0.8, 0.4])
    assert [d.box_zyx for d in track.in_context] == [d.box_zyx for d in track.detections]


def test_input_order_does_not_matter() -> None:
    boxes = [detection(0, 50 + i, 50, 20, 0.5) for i in range(6)]
    assert decode(boxes, CONFIG) == decode(boxes[::-1], CONFIG)


def test_a_lesion_through_slices_becomes_one_track() -> None:
    slices = decode([detection(z, 50, 50 + z, 20, 0.5 + z / 100) for z in (4, 5, 6, 7)], CONFIG)
    (track,) = link(slices, CONFIG, spacing_z_mm=5.0)
    assert track.box_zyx.lower_zyx[0] == 4 and track.box_zyx.upper_zyx[0] == 8
    assert track.score == pytest.approx((0.57 + 0.56) / 2)
    assert track.best is track.detections[-1]


def test_faint_ends_do_not_weaken_a_lesion() -> None:
    scores = {3: 0.15, 4: 0.9, 5: 0.15}
    slices = decode([detection(z, 50, 50, 20, score) for z, score in scores.items()], CONFIG)
    (track,) = link(slices, CONFIG, spacing_z_mm=5.0)
    assert track.score == pytest.approx(0.9) and len(track.detections) == 3


def test_one_missing_slice_is_bridged_and_two_are_not() -> None:
    bridged = link(decode([detection(z, 50, 50, 20, 0.5) for z in (4, 6)], CONFIG), CONFIG, 5.0)
    assert len(bridged) == 1
    parted = link(decode([detection(z, 50, 50, 20, 0.5) for z in (4, 7)], CONFIG), CONFIG, 5.0)
    assert len(parted) == 2


def test_neighbours_of_other_labels_or_places_do_not_link() -> None:
    slices = decode(
        [
            detection(0, 50, 50, 20, 0.5),
            detection(1, 50, 90, 20, 0.5),
            detection(1, 50, 50, 20, 0.5, "liver_mass"),
        ],
        CONFIG,
    )
    assert len(link(slices, CONFIG, 5.0)) == 3


def test_two_lesions_side_by_side_stay_two() -> None:
    slices = decode(
        [detection(z, 50, x, 20, 0.5) for z in range(4) for x in (50, 75)],
        CONFIG,
    )
    tracks = link(slices, CONFIG, 5.0)
    assert sorted(t.box_zyx.center_zyx[2] for t in tracks) == [49.5, 74.5]


def test_a_lesion_seen_on_too_few_thin_slices_is_scored_down() -> None:
    config = CONFIG.model_copy(update={"least_extent_mm": 4.0})
    slices = decode([detection(3, 50, 50, 20, 0.8)], config)
    (thin,) = link(slices, config, spacing_z_mm=1.0)
    (thick,) = link(slices, config, spacing_z_mm=5.0)
    assert thin.score == 0.4 and thick.score == 0.8
