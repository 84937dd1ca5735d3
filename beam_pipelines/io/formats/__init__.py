"""File formats of inputs. A new format is a module that defines a `Format`, and a line in `registry`."""
