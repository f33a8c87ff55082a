"""mrcz 0.x's surface; nothing depends on it but the old names."""
