"""The archive job: the stages as a Ray Data graph, from a manifest to Parquet."""

import os

# Read when ray.data is imported: from this share of their memory on, loaders are held back to twice
# what the detectors have in hand. Ray's own 0.5 lets what is loaded grow with the length of the
# archive up to half of the object store. At 0, results wait for a writer that waits for them.
os.environ.setdefault("RAY_DATA_DOWNSTREAM_CAPACITY_OBJECT_STORE_BUDGET_UTIL_THRESHOLD", "0.05")
