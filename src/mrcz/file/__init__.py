"""One MRC or MRCZ file as an array of frames, read or appended."""
