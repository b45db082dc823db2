"""What the fork server imports once for all stages. Imported for its effect alone."""

import distilabel.pipeline
import pyarrow.dataset
import torch
import transformers

__all__ = ["distilabel", "pyarrow", "torch", "transformers"]
