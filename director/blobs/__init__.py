"""Content-addressed files, and trees of files that are read, written and unpacked safely."""
