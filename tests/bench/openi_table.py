"""A table of the shape of Open-I's with made-up reports: no real one may be copied here."""

import csv
import random
from pathlib import Path

COLUMNS = ("uid", "MeSH", "Problems", "image", "indication", "comparison", "findings", "impression")
_TAGGED = {
    "Cardiomegaly/mild": "The heart is mildly enlarged.",
    "Pleural Effusion/left/small": "There is a small left pleural effusion.",
    "Pleural Effusion/right/small": "There is a small right pleural effusion.",
    "Pulmonary Atelectasis/base/left/mild": "Mild left basilar atelectasis.",
    "Calcified Granuloma/lung/upper lobe/right": "Calcified granuloma in the right upper lobe.",
    "Lung/hypoinflation": "Low lung volumes.",
    "Catheters, Indwelling/right": "Right chest port with its tip in the vena cava.",
}
_NORMAL = (
    ("The heart is normal in size.", "Heart size normal."),
    ("The lungs are clear.", "Lungs are clear bilaterally."),
    ("No pneumothorax or pleural effusion.", "There is no pleural effusion."),
    ("No acute bony abnormality.", "XXXX are intact."),
)
_AGAINST = {
    "Cardiomegaly": 0,
    "Pulmonary Atelectasis": 1,
    "Calcified Granuloma": 1,
    "Pleural Effusion": 2,
}


def write_table(folder: Path, count: int = 120) -> Path:
    """A folder with reports.csv."""
    rng = random.Random(0)
    folder.mkdir(parents=True)
    with (folder / "reports.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, COLUMNS)
        table.writeheader()
        for uid in range(1, count + 1):
            table.writerow(_row(uid, rng))
    return folder


def _row(uid: int, rng: random.Random) -> dict[str, str]:
    tags = rng.sample(list(_TAGGED), rng.choice([0, 0, 1, 1, 2]))
    against = {_AGAINST[t.split("/")[0]] for t in tags if t.split("/")[0] in _AGAINST}
    house = rng.randrange(2)  # two ways to write, told by the header
    said = [_TAGGED[tag] for tag in tags]
    said += [words[house] for i, words in enumerate(_NORMAL) if i not in against]
    return {
        "uid": str(uid),
        "MeSH": ";".join(tags) or "normal",
        "Problems": ";".join(tag.split("/")[0] for tag in tags) or "normal",
        "image": ("Chest PA and lateral", "Two views of the chest")[house],
        "indication": "Cough",
        "comparison": ("None.", "")[house],
        "findings": " ".join(said),
        "impression": "1. No acute disease." if not tags else f"1. {said[0]}",
    }
