//! fs-verity (`Documentation/filesystems/fsverity.rst` of Linux): a file whose bytes can never
//! change again, and which the kernel compares with a tree of hashes as they are read from the disk.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

/// `FS_IOC_ENABLE_VERITY` of `linux/fsverity.h`: `_IOW('f', 133, struct fsverity_enable_arg)`.
const ENABLE: u64 = 0x4080_6685;

/// The only version of the argument.
const VERSION: u32 = 1;

/// `FS_VERITY_HASH_ALG_SHA256`.
const SHA256: u32 = 1;

/// Bytes of a block that is hashed: the size of a page, which every kernel takes.
const BLOCK: u32 = 4096;

/// How often and after which pause it is tried again while a process that is just being made holds
/// a copy of a writer's descriptor, until its exec closes it.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(2);

/// `struct fsverity_enable_arg`.
#[repr(C)]
#[derive(Default)]
struct EnableArg {
    version: u32,
    hash_algorithm: u32,
    block_size: u32,
    salt_size: u32,
    salt: u64,
    signature_size: u32,
    reserved: u32,
    signature: u64,
    more_reserved: [u64; 11],
}

/// Protects `file`, which must be open for reading, and nowhere for writing. Says whether it is
/// protected: not where kernel or filesystem have no fs-verity, or only for other sizes of blocks.
///
/// # Errors
/// `ETXTBSY` while somebody has it open for writing, and those of the disk.
pub fn enable(file: &File) -> io::Result<bool> {
    let mut tries = TRIES;
    loop {
        match try_enable(file) {
            Err(error) if error.raw_os_error() == Some(libc::ETXTBSY) && tries > 0 => {
                tries -= 1;
                thread::sleep(PAUSE);
            }
            tried => return tried,
        }
    }
}

fn try_enable(file: &File) -> io::Result<bool> {
    let argument = EnableArg {
        version: VERSION,
        hash_algorithm: SHA256,
        block_size: BLOCK,
        ..EnableArg::default()
    };
    // SAFETY: FS_IOC_ENABLE_VERITY reads a fsverity_enable_arg, which `argument` is and which
    // outlives the call; with their sizes 0, salt and signature are not looked at.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), ENABLE as _, &raw const argument) };
    if done == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EEXIST) => Ok(true),
        // The filesystem lacks the feature; the kernel lacks it, or knows no such call; the
        // filesystem's blocks are of a size that an older kernel can't protect.
        Some(libc::EOPNOTSUPP | libc::ENOTTY | libc::EINVAL) => Ok(false),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_argument_is_the_kernels() {
        assert_eq!(size_of::<EnableArg>(), 128);
        assert_eq!(std::mem::offset_of!(EnableArg, signature), 32);
        // _IOW: the direction, the size, the type and the number.
        assert_eq!(ENABLE, (1 << 30) | (128 << 16) | (u64::from(b'f') << 8) | 133);
    }

    #[test]
    fn memory_has_no_verity() {
        let path = std::path::Path::new("/dev/shm").join(format!("verity-{}", std::process::id()));
        std::fs::write(&path, "x").expect("write");
        let file = File::open(&path).expect("open");
        std::fs::remove_file(&path).expect("remove");
        assert!(!enable(&file).expect("an answer"));
    }
}
