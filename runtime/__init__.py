"""Run a task in a box and say exactly what came out."""
