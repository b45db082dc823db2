"""Recipes and accelerate launch files, as package data."""
