"""Read CT archives: find series once, then decode them on demand."""
