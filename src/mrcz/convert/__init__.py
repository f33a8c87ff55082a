"""Any frames to any file: the copy with its proof, and views for other programs."""
