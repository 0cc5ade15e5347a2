"""The losses of single elements."""

from __future__ import annotations

__all__: list[str] = []
