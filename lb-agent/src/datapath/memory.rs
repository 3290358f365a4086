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

/// Has the kernel take back the memory of a part of the program file that is not read again soon; if
/// it is, it comes from the file anew.
pub(super) fn let_go(part: &'static [u8]) {
    // SAFETY: a question about the system, without an argument that could be wrong.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let page = usize::try_from(page).unwrap_or(4096);
    let begin = part.as_ptr().addr().next_multiple_of(page);
    let end = (part.as_ptr().addr() + part.len()) / page * page;
    if begin < end {
        let length = end - begin;
        let begin: *mut libc::c_void = part.as_ptr().with_addr(begin).cast_mut().cast();
        // SAFETY: whole pages within a constant, which nothing has written to: what the file says is
        // what they hold.
        unsafe { libc::madvise(begin, length, libc::MADV_DONTNEED) };
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
