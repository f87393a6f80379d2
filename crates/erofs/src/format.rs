//! The records of an image, byte by byte. All numbers are little-endian.
//!
//! Names in capitals, and those of structures and fields, are the kernel's, from
//! `fs/erofs/erofs_fs.h`; what they mean is from there and from
//! `Documentation/filesystems/erofs.rst`, "On-disk details".

use berth_archive::Time;

use crate::checksum::crc32c;

/// The size of a block: `blkszbits` is 12.
pub(crate) const BLOCK: usize = 4096;

/// Where the superblock begins: `EROFS_SUPER_OFFSET`.
pub(crate) const SUPERBLOCK: usize = 1024;

/// What inodes are aligned to, and the unit of their numbers.
pub(crate) const SLOT: usize = 32;

/// The size of an `erofs_inode_extended`.
pub(crate) const INODE: usize = 64;

/// Where the root's inode is, right behind the 128 bytes of the superblock.
pub(crate) const ROOT: usize = SUPERBLOCK + 128;

/// The place of the link count in an inode: `i_nlink`.
pub(crate) const LINKS: usize = 44;

/// The size of an `erofs_dirent`.
pub(crate) const DIRENT: usize = 12;

/// `EROFS_NULL_ADDR`: a chunk that is a hole. No block has this address.
pub(crate) const HOLE: u32 = u32::MAX;

/// What a file is: the type in a directory entry, which is the kernel's `FT_*` of
/// `include/linux/fs_types.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum FileType {
    Regular = 1,
    Directory = 2,
    CharacterDevice = 3,
    BlockDevice = 4,
    Fifo = 5,
    Symlink = 7,
}

impl FileType {
    /// The type as the upper bits of a mode (`inode(7)`).
    pub(crate) fn mode(self) -> u16 {
        match self {
            Self::Regular => 0o100_000,
            Self::Directory => 0o040_000,
            Self::CharacterDevice => 0o020_000,
            Self::BlockDevice => 0o060_000,
            Self::Fifo => 0o010_000,
            Self::Symlink => 0o120_000,
        }
    }
}

/// Where the data of an inode is: `i_format`, bits 1 to 3, and what `i_u` then holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// `EROFS_INODE_FLAT_PLAIN`: in blocks from the one at this address on. Devices have their
    /// number in its place.
    Plain(u32),
    /// `EROFS_INODE_FLAT_INLINE`: likewise, but the last block's part follows the inode.
    Inline(u32),
    /// `EROFS_INODE_CHUNK_BASED`: the inode is followed by an array of addresses, each of a chunk
    /// of 2^n blocks.
    Chunked(u8),
}

/// An `erofs_inode_extended`: the compact form has neither times nor large owners.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inode {
    /// Type and permissions.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    pub(crate) links: u32,
    pub(crate) size: u64,
    pub(crate) layout: Layout,
}

impl Inode {
    /// The record, when `xattrs` bytes of attributes follow it, as encoded by `attributes`.
    pub(crate) fn encode(&self, xattrs: usize, number: u32) -> [u8; INODE] {
        let (layout, union) = match self.layout {
            Layout::Plain(address) => (0, address),
            Layout::Inline(address) => (2, address),
            // `erofs_inode_chunk_info`: the exponent, without EROFS_CHUNK_FORMAT_INDEXES.
            Layout::Chunked(exponent) => (4, u32::from(exponent)),
        };
        // The header of the attributes counts as one, whatever follows it in units of four bytes.
        let count = if xattrs == 0 { 0 } else { (xattrs - 12) / 4 + 1 };
        let mut record = Record::<INODE>::new();
        record.put(0, &(1 | (layout << 1) as u16).to_le_bytes()); // i_format: version 1
        record.put(2, &(count as u16).to_le_bytes()); // i_xattr_icount
        record.put(4, &self.mode.to_le_bytes()); // i_mode
        record.put(8, &self.size.to_le_bytes()); // i_size
        record.put(16, &union.to_le_bytes()); // i_u
        record.put(20, &number.to_le_bytes()); // i_ino, for stat(2) with 32 bits
        record.put(24, &self.uid.to_le_bytes()); // i_uid
        record.put(28, &self.gid.to_le_bytes()); // i_gid
        record.put(32, &self.mtime.seconds.to_le_bytes()); // i_mtime, before 1970 negative
        record.put(40, &(self.mtime.nanoseconds as u32).to_le_bytes()); // i_mtime_nsec
        record.put(LINKS, &self.links.to_le_bytes()); // i_nlink
        record.0 // i_reserved (6) and i_reserved2 (48) are zero
    }

    /// How a symbolic link's text is stored, of an encoded inode: its length, its address where it
    /// has a block of its own, and the length of the attributes before it otherwise.
    pub(crate) fn text(record: &[u8; INODE]) -> (usize, Option<u32>, usize) {
        let short = |at: usize| u16::from_le_bytes([record[at], record[at + 1]]);
        let long = |at: usize| {
            u32::from_le_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]])
        };
        let xattrs = match usize::from(short(2)) {
            0 => 0,
            count => 12 + 4 * (count - 1),
        };
        let plain = short(0) >> 1 == 0;
        (long(8) as usize, plain.then(|| long(16)), xattrs)
    }
}

/// The number of a device as `i_u` holds it: `new_encode_dev` of the kernel's `kdev_t.h`.
pub(crate) fn device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// The `erofs_super_block`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Superblock {
    /// Inodes, each once.
    pub(crate) inodes: u64,
    /// Blocks of the image.
    pub(crate) blocks: u32,
    pub(crate) uuid: [u8; 16],
    /// Some inode is [`Layout::Chunked`].
    pub(crate) chunked: bool,
}

impl Superblock {
    /// Writes the record in the image's first block, which holds all else that it will, and the
    /// checksum over both.
    pub(crate) fn encode(&self, block: &mut [u8; BLOCK]) {
        // EROFS_FEATURE_COMPAT_SB_CHKSUM, _MTIME; EROFS_FEATURE_INCOMPAT_CHUNKED_FILE
        let (compatible, incompatible) = (1u32 | 2, if self.chunked { 4u32 } else { 0 });
        let mut record = Record::<128>::new();
        record.put(0, &0xe0f5_e1e2_u32.to_le_bytes()); // magic: EROFS_SUPER_MAGIC_V1
        record.put(8, &compatible.to_le_bytes()); // feature_compat
        record.put(12, &[BLOCK.ilog2() as u8]); // blkszbits
        record.put(14, &((ROOT / SLOT) as u16).to_le_bytes()); // root_nid
        record.put(16, &self.inodes.to_le_bytes()); // inos
        record.put(36, &self.blocks.to_le_bytes()); // blocks
        record.put(48, &self.uuid); // uuid
        record.put(80, &incompatible.to_le_bytes()); // feature_incompat
        // Zero: sb_extslots (13), build_time (24), build_time_nsec (32), meta_blkaddr (40),
        // xattr_blkaddr (44), volume_name (64), and from 84 on what concerns compression, more
        // devices, larger directory blocks, long prefixes and the packed inode.
        block[SUPERBLOCK..SUPERBLOCK + 128].copy_from_slice(&record.0);
        // checksum (4): over the rest of the block, counted as zero itself.
        let checksum = crc32c(&block[SUPERBLOCK..]);
        block[SUPERBLOCK + 4..SUPERBLOCK + 8].copy_from_slice(&checksum.to_le_bytes());
    }
}

/// A name in a directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dirent<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) number: u64,
    pub(crate) kind: FileType,
}

/// Appends a block of a directory, or the part of its last: the `erofs_dirent`s, then the names.
/// The offset of the first name also tells how many there are.
pub(crate) fn encode_dirents(dirents: &[Dirent<'_>], block: &mut Vec<u8>) {
    let mut name_offset = dirents.len() * DIRENT;
    for dirent in dirents {
        let mut record = Record::<DIRENT>::new();
        record.put(0, &dirent.number.to_le_bytes()); // nid
        record.put(8, &(name_offset as u16).to_le_bytes()); // nameoff
        record.put(10, &[dirent.kind as u8]); // file_type; reserved (11) is zero
        block.extend_from_slice(&record.0);
        name_offset += dirent.name.len();
    }
    for dirent in dirents {
        block.extend_from_slice(dirent.name);
    }
}

/// A record being filled in; what isn't is zero.
struct Record<const N: usize>([u8; N]);

impl<const N: usize> Record<N> {
    fn new() -> Self {
        Self([0; N])
    }

    fn put(&mut self, offset: usize, field: &[u8]) {
        self.0[offset..offset + field.len()].copy_from_slice(field);
    }
}
