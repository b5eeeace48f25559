"""`make bench`: what Director costs, beside what does the same without it."""
