"""Where bytes come from and go: descriptors, URLs, wrappers, whole-or-absent writes; knows no format."""
