"""What both servers share at the HTTP edge: bounded bodies, cancelling, problem documents, server-sent events,
CloudEvents, deadlines, settings and the listening socket.

Imports the contract and light libraries only (starlette, anyio, pydantic); `web` and `predictor` build on it and never
on each other.
"""
