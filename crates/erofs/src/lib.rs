//! A layer as one file: its tar stream, written as an erofs image in one pass.
//!
//! An erofs image is read by the kernel alone, is never changed, and can be checked by one hash;
//! writing it costs a sequential stream and one fsync instead of a system call or five for each
//! file. [`write()`] takes the stream in, [`Draft::settle`] corrects what depends on the layers
//! below, [`Draft::seal`] completes the image.
//!
//! # Layout
//! The on-disk format is that of the kernel's `Documentation/filesystems/erofs.rst` and
//! `fs/erofs/erofs_fs.h`; module `format` names its records field by field. Blocks have 4096
//! bytes, nothing is compressed, the address of metadata is 0, so that an inode's number is its
//! offset in the image divided by 32.
//! ```text
//! 0      1024        1152          4096
//! ┌──────┬───────────┬─────────────┬──────────────────────────────┬─────────────┬─────────────┐
//! │ own  │superblock │ root: inode,│ as the stream has them: data │ full blocks │ directories:│
//! │      │           │ last dirents│ of files, inodes with tails  │ of dirents  │ inode, tail │
//! └──────┴───────────┴─────────────┴──────────────────────────────┴─────────────┴─────────────┘
//!   written last                     written as it comes             written at the end
//! ```
//! The root is where it is because the superblock has 16 bits for its number. The inode of a file
//! follows its data and holds its last, partial block where that fits in one block with it
//! (`EROFS_INODE_FLAT_INLINE`); blocks of inodes are filled side by side with those of data. Only
//! names wait in memory for the end: sixteen bytes and the name itself for each member, eight more
//! to find it by, and a record for each directory. So nothing is written twice, but for the link
//! counts of files with several names.
//!
//! An image that is [`write_restorable`] has between its data, in blocks that nothing of the
//! filesystem refers to, what else it takes to make the layer's archive again; where that is stands
//! before the superblock. Module `recipe` describes it, [`Archive`] reads it.
//!
//! A crash in between leaves a file without a superblock, which nothing takes for an image.
//!
//! # The same in, the same out
//! The bytes of an image follow from the bytes of its layer, and from what [`Draft::settle`] is
//! told of the layers below: no clock, no random number and no machine goes into them. A recipe is
//! as this release's zstd compresses it.
//!
//! # Hostile layers
//! What a member means is decided by [`berth_archive`], whose reader and checks these are. Names
//! are resolved in the tree of the layer alone, so there is no outside that a link could lead to.

mod archive;
mod attributes;
mod checksum;
mod data;
mod directories;
mod draft;
mod format;
mod members;
mod recipe;
mod resolve;
mod seal;
mod settle;
mod shelf;
mod tree;
mod volume;

pub use archive::Archive;
pub use checksum::checksum;
pub use draft::{Draft, write, write_restorable};
pub use seal::Image;
pub use settle::Below;
