//! Layer tar streams: apply, diff and whiteouts, safe against hostile archives.
