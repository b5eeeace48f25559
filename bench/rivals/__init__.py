"""Those who do the same without Director, each in an environment of its own."""
