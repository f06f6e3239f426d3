//! The heap of every program that links this crate: dlmalloc over memory that is asked for in populated pieces.
//!
//! A command lives for milliseconds, and its heap is a few hundred pages. One page fault costs microseconds (on a virtual machine
//! ten), so musl's allocator, which maps small pieces and gives them back at once, spends more time in faults than the command
//! does in work. Here the kernel fills 64 KiB in one call (`MAP_POPULATE`, mmap(2)), and keeps them until two megabytes are
//! free. Larger pieces, which are buffers, are left to be touched as they are used.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Pieces up to this many bytes are populated.
const POPULATED: usize = 256 << 10;

struct Pages;

// SAFETY: what `alloc` returns is fresh, private, zeroed memory of the size it says, owned by the caller until `free`.
unsafe impl dlmalloc::Allocator for Pages {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        let populate = if size <= POPULATED { libc::MAP_POPULATE } else { 0 };
        // SAFETY: an anonymous private mapping at an address of the kernel's choice touches nothing that exists.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | populate,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED { (std::ptr::null_mut(), 0, 0) } else { (address.cast(), size, 0) }
    }
    fn remap(&self, address: *mut u8, old: usize, new: usize, can_move: bool) -> *mut u8 {
        let flags = if can_move { libc::MREMAP_MAYMOVE } else { 0 };
        // SAFETY: the caller, dlmalloc, owns this mapping.
        let address = unsafe { libc::mremap(address.cast(), old, new, flags) };
        if address == libc::MAP_FAILED { std::ptr::null_mut() } else { address.cast() }
    }
    fn free_part(&self, address: *mut u8, old: usize, new: usize) -> bool {
        // SAFETY: as in `remap`; the tail is no longer used.
        unsafe { libc::munmap(address.add(new).cast(), old - new) == 0 }
    }
    fn free(&self, address: *mut u8, size: usize) -> bool {
        // SAFETY: as in `remap`; nothing in it is used any more.
        unsafe { libc::munmap(address.cast(), size) == 0 }
    }
    fn can_release_part(&self, _flags: u32) -> bool {
        true
    }
    fn allocates_zeros(&self) -> bool {
        true
    }
    fn page_size(&self) -> usize {
        4096
    }
}

struct Heap(Mutex<dlmalloc::Dlmalloc<Pages>>);

impl Heap {
    fn locked(&self) -> MutexGuard<'_, dlmalloc::Dlmalloc<Pages>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// SAFETY: dlmalloc keeps the contract of an allocator, one call at a time: the lock sees to that. Locking a futex mutex allocates
// nothing. A child of a single-threaded fork inherits the lock free.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: size and alignment come from a valid layout.
        unsafe { self.locked().malloc(layout.size(), layout.align()) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { self.locked().calloc(layout.size(), layout.align()) }
    }
    unsafe fn dealloc(&self, address: *mut u8, layout: Layout) {
        // SAFETY: the caller says that `address` was allocated here with this layout.
        unsafe { self.locked().free(address, layout.size(), layout.align()) }
    }
    unsafe fn realloc(&self, address: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as in `dealloc`.
        unsafe { self.locked().realloc(address, layout.size(), layout.align(), size) }
    }
}

/// Gives back the pages of the program's file that are mapped and clean: code and constants that start-up needed and a waiting
/// process does not. What is used again comes back from the page cache. Without it a process counts every page that the
/// kernel mapped around its faults (proc(5), `Pss` of /proc/PID/smaps).
///
/// # Errors
/// Those of reading /proc/self/smaps and of `madvise(2)`.
pub fn release_clean_pages() -> std::io::Result<()> {
    let smaps = std::fs::read_to_string("/proc/self/smaps")?;
    let mut mapping = None;
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        let first = words.next().unwrap_or_default();
        if let Some((start, end)) = first.split_once('-')
            && let (Ok(start), Ok(end)) = (usize::from_str_radix(start, 16), usize::from_str_radix(end, 16))
        {
            let unwritable = words.next().is_some_and(|mode| mode.starts_with("r-") && mode.ends_with('p'));
            let of_a_file = words.nth(3).is_some_and(|path| path.starts_with('/'));
            mapping = (unwritable && of_a_file).then_some((start, end));
        } else if first == "Anonymous:"
            && words.next() == Some("0")
            && let Some((start, end)) = mapping.take()
        {
            // SAFETY: a private file mapping that nobody may write and that has no page of its own ("Anonymous: 0", which
            // relocated constants would have): every page comes back from the file as it was.
            if unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) } != 0 {
                return Err(std::io::Error::last_os_error());
            }
        }
    }
    Ok(())
}

#[global_allocator]
static HEAP: Heap = Heap(Mutex::new(dlmalloc::Dlmalloc::new_with_allocator(Pages)));

#[cfg(test)]
mod tests {
    /// A constant of the program's file, far from anything else.
    static TABLE: [u64; 4096] = [7; 4096];

    #[test]
    fn released_pages_come_back_as_they_were() {
        let before: u64 = TABLE.iter().sum();
        let text = String::from("kept");
        super::release_clean_pages().unwrap();
        assert_eq!(std::hint::black_box(&TABLE).iter().sum::<u64>(), before);
        assert_eq!(text, "kept");
    }

    #[test]
    fn memory_is_ours_alone_and_zeroed_where_promised() {
        let threads: Vec<_> = (0..4u8)
            .map(|thread| {
                std::thread::spawn(move || {
                    for size in [1usize, 24, 4096, 70_000, 400_000, 3_000_000] {
                        let zeroed = vec![0u8; size];
                        assert!(zeroed.iter().all(|byte| *byte == 0), "{size}");
                        let mut mine = vec![thread; size];
                        mine.extend(std::iter::repeat_n(thread, size));
                        assert!(mine.iter().all(|byte| *byte == thread), "{size}");
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    }
}
