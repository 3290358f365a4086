//! What the allocator keeps for later is given back: loading the programs, and the first listings of
//! many services, take far more for a moment than what stays.
//!
//! Stands here because it is the C library's, beside the other calls of its kind.

use std::ops::Range;

/// Has threads share arenas: one for each would keep its own free memory, and few of the agent's
/// threads ever allocate at the same time. Those that do are the proxy's, as many as `busy`, which would wait
/// for each other at every buffer: for each of them there is one besides. To be called before there are threads.
pub fn share_arenas(busy: usize) {
    #[cfg(target_env = "gnu")]
    {
        // Larger pieces (an answer of Consul's is 100 KiB) come from the kernel and go back to it
        // at once, and leave no holes.
        // SAFETY: as below.
        unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, 64 * 1024) };
        let most = i32::try_from(busy).unwrap_or(i32::MAX).saturating_add(2);
        // SAFETY: two integers; nothing has been allocated by another thread yet. A refusal (0)
        // leaves everything as it is.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, most) };
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

/// Has the kernel take back the pages of the program's own code. Most of them were for the start alone:
/// configuration, verifier, linking. What is needed again is there again at the first step into it.
pub fn let_go_of_code() {
    let here = (let_go_of_code as fn() as *const ()).addr();
    let Some(code) = std::fs::read_to_string("/proc/self/maps")
        .ok()
        .and_then(|maps| mapping_of(&maps, here))
    else {
        return;
    };
    let begin = std::ptr::with_exposed_provenance_mut(code.start);
    // SAFETY: one whole mapping, of a file, that nobody may write to: what the file says is what it
    // holds, be it read from there again while this runs.
    unsafe { libc::madvise(begin, code.len(), libc::MADV_DONTNEED) };
}

/// The mapping that an address lies in, by the lines of /proc/PID/maps (proc_pid_maps(5)), if it can
/// be executed and not written to.
fn mapping_of(maps: &str, address: usize) -> Option<Range<usize>> {
    maps.lines().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (begin, end) = range.split_once('-')?;
        let begin = usize::from_str_radix(begin, 16).ok()?;
        let range = begin..usize::from_str_radix(end, 16).ok()?;
        (range.contains(&address) && rest.starts_with("r-xp ")).then_some(range)
    })
}

/// Gives free memory back to the kernel.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: it takes the allocator's own locks, and touches nothing that is in use.
        unsafe { libc::malloc_trim(0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_what_may_be_executed_and_not_written_to() {
        let maps = "1000-3000 r--p 00000000 fe:00 7  /usr/bin/lb-agent\n\
                    3000-9000 r-xp 00002000 fe:00 7  /usr/bin/lb-agent\n\
                    9000-a000 rw-p 00008000 fe:00 7  /usr/bin/lb-agent\n\
                    b000-c000 rwxp 00000000 00:00 0\n";
        for (address, expected) in [
            (0x2fff, None),
            (0x3000, Some(0x3000..0x9000)),
            (0x8fff, Some(0x3000..0x9000)),
            (0x9000, None),
            (0xa800, None),
            (0xb000, None),
        ] {
            assert_eq!(mapping_of(maps, address), expected, "{address:#x}");
        }
    }

    /// The code is there when it is needed again, here at the return.
    #[test]
    fn code_comes_back() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let here = (let_go_of_code as fn() as *const ()).addr();
        assert!(mapping_of(&maps, here).is_some());
        let_go_of_code();
        give_back();
    }
}
