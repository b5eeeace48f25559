"""What Director is compared with: the least that does the same work, with minimal imports."""
