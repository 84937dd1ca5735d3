"""The demo: five small datasets written for this project, their templates, and the mixture of them."""
