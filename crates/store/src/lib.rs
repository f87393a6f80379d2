//! The embedded database with group commit.
