"""What `manage.py testdata` can look at: one module a topic.

Each has `HELP`, `add_arguments(parser)` and `run(command, options) -> exit status`.
"""
