"""What the fork server imports once for all stages. Imported for its effect alone."""

import gc
import os
import signal
import threading
import warnings

INTERRUPTED_CODE = 130
_in_main_thread = threading.current_thread() is threading.main_thread()
if _in_main_thread:  # Ctrl+C reaches the fork server too, whose traceback would be nobody's
    _handler = signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED_CODE))
gc.disable()  # of what is imported here nothing is garbage; looking for it takes a seventh of the time
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what libraries say about each other while they load concerns nobody here
    import torch
    import transformers.models.auto.modeling_auto

    import eva_stages.core.distil

gc.freeze()  # or each process's garbage collection would write to the pages that it shares with the fork server, and so copy them
gc.enable()
if _in_main_thread:
    signal.signal(signal.SIGINT, _handler)

__all__ = ["eva_stages", "torch", "transformers"]
