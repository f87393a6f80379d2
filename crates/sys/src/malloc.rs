//! What the C library's allocator does with memory that was given back.

/// Gives free memory back to the kernel: the C library keeps what a busy minute took, for the next
/// one. It takes some milliseconds at most, and does nothing where the library has no malloc_trim(3).
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it touches nothing but the allocator's own free memory, under the allocator's locks.
    unsafe {
        libc::malloc_trim(0)
    };
}
