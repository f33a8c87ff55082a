"""Bytes of an MRC or MRCZ file <-> values; pure, opens nothing."""
