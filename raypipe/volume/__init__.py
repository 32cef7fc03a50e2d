"""Turn decoded series into checked volumes, and volumes into what networks see."""
