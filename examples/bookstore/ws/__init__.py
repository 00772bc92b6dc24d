"""The WebSocket door: frames, the router by package id, connections and handlers."""
