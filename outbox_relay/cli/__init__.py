"""The command line, a file per verb. Needs the extra `relay`."""
