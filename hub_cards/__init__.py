"""Model and dataset cards, as package data."""
