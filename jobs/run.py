"""The archive job for `ray job submit`: the same command line as `raypipe run`.

    ray job submit --address http://HEAD:8265 -- python CHECKOUT/jobs/run.py
        -i s3://bucket/ct -o s3://bucket/out

CHECKOUT is the folder of this repository on the nodes, such as /home/ubuntu/raypipe.
"""

import sys

from raypipe.cli import main

if __name__ == "__main__":
    sys.argv = ["raypipe", "run", *sys.argv[1:]]
    main()
