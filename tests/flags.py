"""XLA's flags for tests."""

FAST = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
"""Compiles in half the time, which is most of what tests do, and runs slowly."""
