"""The recipe: one frozen, strictly typed description of a run.

Everything a run means is here, with the paper's values as defaults; a choice is a tagged union on `kind`. What only concerns the
machine sits under a `runtime:` key and never changes what a stage is. Fields that are never read do not exist. Reading recipes
from YAML, overriding and reporting faults is `core/recipe_files.py`.
"""
