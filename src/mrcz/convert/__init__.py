"""Foreign files to frames and frames to foreign files: one module a format."""
