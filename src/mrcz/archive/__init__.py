"""A tree of files: names -> plan -> jobs -> results."""
