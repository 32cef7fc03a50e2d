"""What leaves raypipe: Parquet rows and pages to look at."""
