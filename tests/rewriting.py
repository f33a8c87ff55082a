"""Files that are written again and again, each time damaged in another place."""


def rewrite(path, data):
    """Write a file as a new one. One that is cut to nothing and written again, ext4 flushes to the disk: 2 ms each."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)
