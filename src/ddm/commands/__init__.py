"""The verbs, one a file: ``add_arguments(parser)`` says what it takes, ``run(arguments)`` does it.

Nothing heavy is imported before ``run``, so that ``--help`` is instant.
"""
