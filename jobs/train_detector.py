"""Train the detector, for `ray job submit`.

ray job submit --address http://HEAD:8265 -- python jobs/train_detector.py train.yaml
"""

import sys
from pathlib import Path

import yaml

from raypipe.train.detector_config import TrainDetectorConfig
from raypipe.train.detector_loop import describe, train_detector


def main(path: str) -> None:
    """Read a TrainDetectorConfig from YAML, train, write what came of it to stdout."""
    told = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    result = train_detector(TrainDetectorConfig.model_validate(told))
    sys.stdout.write(describe(result) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python jobs/train_detector.py CONFIG.yaml")
    main(sys.argv[1])
