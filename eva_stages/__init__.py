"""Stages of an eva run. What holds for every process of eva is set here, before any of them imports a library that looks at it."""

import os
import warnings

# Threads that wait for others give the processor away. By default they spin, and on a machine that others use too they spin while the
# thread that they wait for does not run: sampling fell to a hundredth. libgomp reads the first, LLVM's and Intel's OpenMP the second.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("KMP_BLOCKTIME", "0")

# distilabel's own classes, as pydantic sees them each time that distilabel is imported
warnings.filterwarnings("ignore", message="The 'default' attribute with value None was provided to the `Field\\(\\)` function")
