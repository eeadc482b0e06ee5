"""Side by side on this machine: `python -m benchmarks steps|ops|cold|memory|data|tiles|scale`."""
