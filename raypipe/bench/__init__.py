"""Benchmarks: each measures raypipe against a peer in the same run and prints the ratio."""
