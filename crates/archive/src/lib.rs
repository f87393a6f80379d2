//! Layer tar streams: apply, diff and whiteouts, safe against hostile archives.
//!
//! A layer is a tar archive, perhaps compressed, of what changed against the layers below it
//! (OCI image specification, `layer.md`). Three things are done with one here:
//!
//! - [`Decompress`] and [`Entries`] read it as a stream of [`Entry`]s, never holding more than a
//!   buffer of it;
//! - [`apply`] makes a tree of it, and [`settle`](settle()) then corrects what depends on the
//!   layers below;
//! - [`diff`] makes an archive of the difference of two trees, or of an overlay's upper directory.
//!
//! An archive is trusted in nothing. Paths are looked up as if the tree's root were `/`, so links
//! in it can't lead outside; sizes, counts and expansion are limited; what readers of tar disagree
//! on is refused.

mod apply;
mod compression;
mod diff;
mod encoding;
mod entries;
mod entry;
mod header;
mod pax;
mod role;
mod settle;
mod source;
mod sparse;
mod tree;
mod write;
mod xattr;

pub use apply::{Applied, Limits, Options, Whiteouts, apply};
pub use compression::{Compression, Decompress};
pub use diff::{diff, diff_upper};
pub use encoding::{Compressor, Encoding};
pub use entries::Entries;
pub use entry::{Device, Entry, EntryKind, Time, Xattr, shown};
pub use role::Role;
pub use settle::{Lowers, settle};
pub use xattr::xattrs;
