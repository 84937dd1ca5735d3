"""The bounded jinja environment that templates run in: nothing of Python to reach, and no unbounded loop or text."""
