"""The recipe: one frozen, strictly typed description of a run.

It holds every setting that affects results, with the paper's values as defaults; a choice is a tagged union on `kind`. Settings that only
concern the machine are under a `runtime:` key and are no part of a stage's identity. `core/recipe_files.py` reads recipes from YAML,
applies overrides and reports errors.
"""
