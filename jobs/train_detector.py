"""Training of the detector for `ray job submit`: the same command line as `raypipe train detector`.

ray job submit --address http://HEAD:8265 -- python jobs/train_detector.py -c train.yaml -o s3://...
"""

import sys

from raypipe.cli import main

if __name__ == "__main__":
    sys.argv = ["raypipe", "train", "detector", *sys.argv[1:]]
    main()
