//! Images into the stores: the pull pipeline, unpacking and imports.
