"""
The example programs of the user's documents, run as they are used there.

Each ``d…`` module is such a program with another import prefix, and with the repairs that
``docs/reference/documents.md`` lists. They are written anew: same calls, same names, own words.
"""
