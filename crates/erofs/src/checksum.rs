//! The checksum of a superblock.

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
