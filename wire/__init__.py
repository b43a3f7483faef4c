"""What both servers do at the HTTP edge: whole and bounded bodies, cancelling, problem documents, server-sent events,
deadlines, settings and the listening socket.

Imports the contract and light libraries only (starlette, anyio, pydantic); `web` and `predictor` build on it and never
on each other.
"""
