"""Findings become a verified report: request, engine, verifier."""
