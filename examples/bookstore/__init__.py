"""
A bookstore: one set of commands behind HTTP and WebSocket, whose events reach a second service.
"""
