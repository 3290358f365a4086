//! What the allocator keeps for later is given back: loading the programs, and the first listings of
//! many services, take far more for a moment than what stays.
//!
//! Stands here because it is the C library's, beside the other calls of its kind.

/// Has threads share two arenas: one for each would keep its own free memory, and few of the agent's
/// threads ever allocate at the same time. To be called before there are threads.
pub fn share_arenas() {
    #[cfg(target_env = "gnu")]
    {
        // Larger pieces (an answer of Consul's is 100 KiB) come from the kernel and go back to it
        // at once, and leave no holes.
        // SAFETY: as below.
        unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, 64 * 1024) };
        // SAFETY: two integers; nothing has been allocated by another thread yet. A refusal (0)
        // leaves everything as it is.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, 2) };
    }
}

/// Gives free memory back to the kernel.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: it takes the allocator's own locks, and touches nothing that is in use.
        unsafe { libc::malloc_trim(0) };
    }
}
