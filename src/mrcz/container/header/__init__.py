"""The 1024 bytes of the header: layout, parsing, building, and the value between."""
