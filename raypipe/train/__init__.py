"""Training of the networks on Ray Train."""
