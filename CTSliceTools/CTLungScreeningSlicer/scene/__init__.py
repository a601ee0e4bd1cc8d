"""Shared by both logics: volumes and nodes, undo, child commands, a headless MRML host."""
