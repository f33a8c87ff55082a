"""Fixtures of the tests of a mount."""

from mount.mounting import folder, nothing_stays_mounted, tree

__all__ = ["folder", "nothing_stays_mounted", "tree"]
