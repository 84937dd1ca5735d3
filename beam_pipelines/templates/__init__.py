"""PromptSource templates: mixture files, template files, compiling and rendering, and the sandbox they run in."""
