"""How well raypipe does: measures with intervals, tables and figures."""
