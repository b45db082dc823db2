"""Stages of an eva run. What holds for every process of eva is set here, before any of them imports a library that looks at it."""

from eva_stages.core.patches import ignore_field_warnings, let_waiting_threads_sleep

let_waiting_threads_sleep()
ignore_field_warnings()
