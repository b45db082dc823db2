"""The report of a run: one HTML file for people, and its plots as files for cards."""
