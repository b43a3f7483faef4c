"""What both servers do at the HTTP edge: whole and bounded bodies, cancelling, problem documents, server-sent events.

Imports the contract and starlette only; `web` and `predictor` build on it and never on each other.
"""
