"""What the tests' fork server imports beside eva's own modules: LiteLLM, which takes 3 seconds in each stage that calls a server."""

from eva_stages.core.patches import import_litellm

import_litellm()
