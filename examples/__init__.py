"""Example applications; each folder has its own README."""
