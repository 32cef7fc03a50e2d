"""From raw boxes on slices to the findings that raypipe claims in a volume."""
