"""What the fork server imports once for all stages. Imported for its effect alone."""

import gc
import warnings

gc.disable()  # of what is imported here nothing is garbage; looking for it takes a seventh of the time
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what libraries say about each other while they load concerns nobody here
    import torch
    import transformers.models.auto.modeling_auto

    import eva_stages.core.distil

gc.freeze()  # or each process's garbage collection would write to the pages that it shares with the fork server, and so copy them
gc.enable()

__all__ = ["eva_stages", "torch", "transformers"]
