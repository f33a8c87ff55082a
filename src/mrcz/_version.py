"""The version, where everything may read it without importing anything else."""

__version__ = "1.0.0.dev0"
