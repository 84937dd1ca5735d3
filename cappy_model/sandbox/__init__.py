"""A jinja2 sandbox for templates: no access to Python's internals, and bounded loops, text and work."""
