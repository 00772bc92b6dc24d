"""The dashboard: the listener ``[admin]``. Server-rendered pages over `operations`; off by default."""
