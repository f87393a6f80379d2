//! What the C library's allocator does with memory that was given back: mallopt(3).

/// The C library's own first choice, bytes.
const LARGE: libc::c_int = 128 << 10;

/// Gives freed memory back to the kernel from now on, rather than keeping more and more of it as
/// larger pieces come and go. glibc adapts its two thresholds to what a program allocates unless
/// they are set; a daemon would hold what its busiest hour took.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    for parameter in [libc::M_MMAP_THRESHOLD, libc::M_TRIM_THRESHOLD] {
        // SAFETY: mallopt takes two integers and changes the allocator's parameters under its
        // own lock. A value that it refuses changes nothing.
        unsafe { libc::mallopt(parameter, LARGE) };
    }
}
