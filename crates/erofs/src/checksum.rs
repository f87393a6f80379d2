//! The checksums of an image and of its superblock.

use std::fs::File;
use std::os::unix::fs::FileExt;

use berth_types::{Algorithm, Digest, Hasher, Result, ResultExt};

/// How much is read at once, in bytes.
const PIECE: usize = 1 << 20;

/// The digest of all bytes of an image's file.
///
/// # Errors
/// Those of the disk.
pub fn checksum(file: &File) -> Result<Digest> {
    let (mut hasher, mut piece, mut offset) = (Hasher::new(Algorithm::Sha256), vec![0; PIECE], 0);
    loop {
        let count = file.read_at(&mut piece, offset).context(|| "read the layer's image")?;
        if count == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&piece[..count]);
        offset += count as u64;
    }
}

/// The polynomial of Castagnoli's CRC, reflected.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// The CRC-32C of `bytes` as erofs stores it: it starts with all ones and is not inverted at the
/// end. A block's worth of bytes needs no table.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3720, appendix B.4, "CRC Examples", whose values are inverted.
    #[test]
    fn published_values() {
        assert_eq!(!crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(!crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(!crc32c(b"123456789"), 0xe306_9283);
    }
}
