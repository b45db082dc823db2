"""Stages of an eva run. Settings of every eva process are made here, before a library that reads them is imported."""

from eva_stages.core.patches import ignore_field_warnings, let_waiting_threads_sleep

let_waiting_threads_sleep()
ignore_field_warnings()
