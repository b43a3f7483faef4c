"""Requests that the tests send to web."""

from __future__ import annotations

POEM = {"prompt": "写一首关于春雨的诗", "model": "text"}
CAT = {"prompt": "画一只猫", "model": "image"}
