"""The archive job: the stages as a Ray Data graph, from a manifest to Parquet."""
