//! Containers: creating their processes, starting, joining and destroying them.
