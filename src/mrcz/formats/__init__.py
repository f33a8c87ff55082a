"""One module a foreign format; knows no MRCZ."""
