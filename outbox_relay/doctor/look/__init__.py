"""Where the facts come from: files, a database, a broker, a socket. Everything here only looks."""
