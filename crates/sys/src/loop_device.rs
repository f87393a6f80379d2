//! Loop devices (`loop(4)`): a file as a block device, for what can be mounted from one only.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// `LOOP_CTL_GET_FREE` and `LOOP_CONFIGURE` of `linux/loop.h`.
const GET_FREE: u64 = 0x4c82;
const CONFIGURE: u64 = 0x4c0a;

/// `LO_FLAGS_READ_ONLY` and `LO_FLAGS_AUTOCLEAR`.
const FLAGS: u32 = 1 | 4;

/// How often another device is tried when one that was free is taken meanwhile.
const TRIES: usize = 32;

/// `struct loop_config`, of which `struct loop_info64` is the middle part.
#[repr(C)]
struct Config {
    file: u32,
    block_size: u32,
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
    reserved: [u64; 8],
}

/// A read-only loop device. It is the file's until nothing holds or mounts it any more.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
    _device: File,
}

impl LoopDevice {
    /// The device's name.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes a read-only loop device of `file`. Needs Linux 5.8.
///
/// # Errors
/// `ENOENT` when the kernel has no loop devices, and those of `loop(4)`.
pub fn attach(file: BorrowedFd<'_>) -> io::Result<LoopDevice> {
    let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
    let mut tries = TRIES;
    loop {
        // SAFETY: LOOP_CTL_GET_FREE takes no argument.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), GET_FREE as _) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = File::open(&path)?;
        match configure(&device, file) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && tries > 0 => tries -= 1,
            configured => return configured.map(|()| LoopDevice { path, _device: device }),
        }
    }
}

fn configure(device: &File, file: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: a loop_config is plain data, for which all zeroes is a valid value.
    let mut config: Config = unsafe { std::mem::zeroed() };
    config.file = file.as_raw_fd() as u32;
    config.flags = FLAGS;
    // SAFETY: LOOP_CONFIGURE reads a loop_config, which `config` is and which outlives the call.
    match unsafe { libc::ioctl(device.as_raw_fd(), CONFIGURE as _, &raw const config) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn the_record_is_the_kernels() {
        assert_eq!(size_of::<Config>(), 304);
        assert_eq!(std::mem::offset_of!(Config, flags), 60);
    }

    #[test]
    fn a_device_reads_as_its_file() {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&[b'x'; 8192]).expect("write");
        let device = attach(file.as_fd()).expect("attach");
        let mut read = [0; 8192];
        File::open(device.path()).and_then(|mut file| file.read_exact(&mut read)).expect("read");
        assert_eq!(read, [b'x'; 8192]);
    }
}
