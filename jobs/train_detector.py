"""Training of the detector for `ray job submit`: the same command line as `raypipe train detector`.

    ray job submit --address http://HEAD:8265 -- python CHECKOUT/jobs/train_detector.py
        -c CHECKOUT/train.yaml -o s3://...

CHECKOUT is the folder of this repository on the nodes, such as /home/ubuntu/raypipe.
"""

import sys

from raypipe.cli import main

if __name__ == "__main__":
    sys.argv = ["raypipe", "train", "detector", *sys.argv[1:]]
    main()
