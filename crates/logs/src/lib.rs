//! Container log formats.
