"""What radiology knows: findings, anatomy, attributes, terms and HU windows."""
