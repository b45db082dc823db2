"""What the fork server imports once for all stages. Imported for its effect alone."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what libraries say about each other while they load concerns nobody here
    import distilabel.pipeline
    import pyarrow.dataset
    import torch
    import transformers.models.auto.modeling_auto

__all__ = ["distilabel", "pyarrow", "torch", "transformers"]
