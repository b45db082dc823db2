"""The imports that the fork server does once for all stages. This module is imported for its effect only."""

import gc
import importlib
import os
import signal
import threading
import warnings

INTERRUPTED_CODE = 130
_in_main_thread = threading.current_thread() is threading.main_thread()
if _in_main_thread:  # Ctrl+C reaches the fork server too; its traceback would be noise
    _handler = signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED_CODE))
gc.disable()  # nothing imported here is garbage; collecting takes a seventh of the import time
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # warnings of libraries about each other while they load
    import torch
    import transformers.models.auto.modeling_auto
    import transformers.models.llama.modeling_llama
    import trl.trainer.dpo_trainer

    import eva_stages.core.distil

    importlib.import_module("eva_stages.models.transformers_generator")  # by its name: core imports no other room

gc.freeze()  # or each process's garbage collection would write to the pages that it shares with the fork server, and so copy them
gc.enable()
if _in_main_thread:
    signal.signal(signal.SIGINT, _handler)

__all__ = ["eva_stages", "torch", "transformers", "trl"]
