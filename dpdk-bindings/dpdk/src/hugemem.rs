//! Large arrays on huge pages: anonymous, or kept in a file that outlives the process.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::ops::{Deref, DerefMut};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::slice;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, Flock, FlockArg, fallocate};
use nix::libc;
use nix::sys::statfs;
use zerocopy::FromBytes;

use crate::error::{DpdkError, ErrorKind};
use crate::prefetch;

const SMALL_PAGE: usize = 4 << 10;
const HUGE_PAGE: usize = 2 << 20;

/// A fixed array of `T` in memory of its own, on 2 MiB pages where there are any.
///
/// New memory is zero. Elements are never dropped: any bytes are a valid `T`, so there is nothing to release.
pub struct HugeArray<T> {
    data: NonNull<T>,
    len: usize,
    memory: Memory,
    adopted: bool,
    /// Keeps other processes from mapping the same file.
    _lock: Option<Flock<File>>,
}

// SAFETY: the array owns its memory, as a Vec does.
unsafe impl<T: Send> Send for HugeArray<T> {}
// SAFETY: as for Vec: shared access gives `&T` only.
unsafe impl<T: Sync> Sync for HugeArray<T> {}

impl<T: FromBytes> HugeArray<T> {
    const FITS_A_PAGE: () = assert!(align_of::<T>() <= SMALL_PAGE);

    /// An array of `len` zeroed elements that goes with the process: on huge pages when enough of 2 MiB are free, else on
    /// ordinary ones, of which the kernel is asked to make transparent huge pages.
    ///
    /// Errors: [`ErrorKind::OutOfMemory`].
    pub fn anonymous(len: usize) -> Result<Self, DpdkError> {
        const FLAGS: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let small = mapped_len::<T>(len, SMALL_PAGE)?;
        if small >= HUGE_PAGE {
            let mapped = mapped_len::<T>(len, HUGE_PAGE)?;
            let flags = FLAGS | libc::MAP_HUGETLB | libc::MAP_HUGE_2MB;
            if let Ok(memory) = Memory::map(mapped, flags, None, true) {
                return Ok(Self::new(memory, len, false, None));
            }
        }
        Self::ordinary(len, FLAGS)
    }

    /// As [`anonymous`](Self::anonymous), but never on reserved huge pages: takes memory only for what is touched or
    /// [prefaulted](Self::prefault).
    ///
    /// Errors: [`ErrorKind::OutOfMemory`].
    pub fn on_demand(len: usize) -> Result<Self, DpdkError> {
        Self::ordinary(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE)
    }

    fn ordinary(len: usize, flags: i32) -> Result<Self, DpdkError> {
        let bytes = mapped_len::<T>(len, SMALL_PAGE)?;
        let memory = Memory::map(bytes, flags, None, false)?;
        // SAFETY: our own mapping. A kernel without transparent huge pages refuses, which costs nothing.
        unsafe { libc::madvise(memory.start.as_ptr(), bytes, libc::MADV_HUGEPAGE) };
        Ok(Self::new(memory, len, false, None))
    }

    /// An array of `len` elements that lives in the file at `path`, on hugetlbfs or tmpfs, and outlives the process.
    ///
    /// A file of the right size is adopted with its contents; any other is emptied and zeroed: [`Self::adopted`] tells.
    /// The size is rounded up to whole pages, so that the caller should also keep a mark of what is in there. All memory
    /// is set aside here. The file is locked (`flock`) while the array exists.
    ///
    /// Errors: [`ErrorKind::FileInUse`]; [`ErrorKind::OutOfMemory`] when the file system is full;
    /// [`ErrorKind::NoHugepages`]; those of opening the file.
    pub fn file(path: &Path, len: usize) -> Result<Self, DpdkError> {
        let explain = |error: DpdkError| error.with_hint(path.display().to_string());
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|error| explain(DpdkError::from_errno("open", error.raw_os_error().unwrap_or(0))))?;
        let file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
            let error = DpdkError::from_errno("flock", errno as i32);
            if errno == Errno::EWOULDBLOCK {
                return error.with_kind(ErrorKind::FileInUse).with_hint(format!("{} is used by another process", path.display()));
            }
            explain(error)
        })?;
        let page = page_size(&file).map_err(explain)?;
        let mapped = mapped_len::<T>(len, page)?;
        let adopted = prepare(&file, mapped).map_err(explain)?;
        let huge = page >= HUGE_PAGE;
        let memory = Memory::map(mapped, libc::MAP_SHARED, Some(&file), huge).map_err(|error| {
            if error.kind == ErrorKind::OutOfMemory && huge {
                return error.with_kind(ErrorKind::NoHugepages).with_hint(format!(
                    "{} needs {} free huge pages of {} MiB",
                    path.display(),
                    mapped / page,
                    page >> 20
                ));
            }
            explain(error)
        })?;
        Ok(Self::new(memory, len, adopted, Some(file)))
    }

    fn new(memory: Memory, len: usize, adopted: bool, lock: Option<Flock<File>>) -> Self {
        let () = Self::FITS_A_PAGE;
        Self { data: memory.start.cast(), len, memory, adopted, _lock: lock }
    }
}

impl<T> HugeArray<T> {
    /// Whether the memory is on reserved huge pages.
    pub fn is_huge(&self) -> bool {
        self.memory.huge
    }

    /// Whether the contents are those of an earlier array in the same file.
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// Makes the kernel provide all pages now, so that no first touch costs a page fault later.
    ///
    /// Errors: [`ErrorKind::OutOfMemory`]; [`ErrorKind::InvalidArgument`] on kernels before 5.14.
    pub fn prefault(&mut self) -> Result<(), DpdkError> {
        let Memory { start, bytes, .. } = self.memory;
        // SAFETY: the range is our own mapping; its contents do not change.
        if unsafe { libc::madvise(start.as_ptr(), bytes, libc::MADV_POPULATE_WRITE) } != 0 {
            return Err(DpdkError::last_system("madvise"));
        }
        Ok(())
    }

    /// Asks for the cache line of element `index` well ahead of its use, into the second cache; out of range it does nothing.
    #[inline(always)]
    pub fn prefetch(&self, index: usize) {
        prefetch::address::<{ prefetch::FAR }>(self.data.as_ptr().wrapping_add(index).cast());
    }

    /// As [`prefetch`](Self::prefetch), just ahead of its use, into the first cache.
    #[inline(always)]
    pub fn prefetch_near(&self, index: usize) {
        prefetch::address::<{ prefetch::NEAR }>(self.data.as_ptr().wrapping_add(index).cast());
    }
}

impl<T> Deref for HugeArray<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: `len` aligned elements are mapped, of a type for which any bytes are valid; this process holds the only
        // mapping made through this module (the file is locked), and we borrow it.
        unsafe { slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for HugeArray<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; the borrow is exclusive.
        unsafe { slice::from_raw_parts_mut(self.data.as_ptr(), self.len) }
    }
}

impl<T> fmt::Debug for HugeArray<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HugeArray")
            .field("len", &self.len)
            .field("huge", &self.memory.huge)
            .field("adopted", &self.adopted)
            .finish_non_exhaustive()
    }
}

/// A mapping, undone on drop.
struct Memory {
    start: NonNull<libc::c_void>,
    bytes: usize,
    huge: bool,
}

impl Memory {
    fn map(bytes: usize, flags: i32, file: Option<&File>, huge: bool) -> Result<Self, DpdkError> {
        let descriptor = file.map_or(-1, AsRawFd::as_raw_fd);
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let start = unsafe { libc::mmap(ptr::null_mut(), bytes, access, flags, descriptor, 0) };
        match NonNull::new(start) {
            Some(start) if start.as_ptr() != libc::MAP_FAILED => Ok(Self { start, bytes, huge }),
            _ => Err(DpdkError::last_system("mmap")),
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: our own mapping, of that length; no reference into it outlives the array that owns us.
        unsafe { libc::munmap(self.start.as_ptr(), self.bytes) };
    }
}

/// Bytes to map for `len` elements: whole pages, at least one.
fn mapped_len<T>(len: usize, page: usize) -> Result<usize, DpdkError> {
    len.checked_mul(size_of::<T>())
        .and_then(|bytes| bytes.max(1).checked_next_multiple_of(page))
        .filter(|&bytes| isize::try_from(bytes).is_ok())
        .ok_or_else(|| DpdkError::from_errno("mmap", Errno::ENOMEM as i32))
}

/// Page size of the file system: that of its huge pages on hugetlbfs, else an ordinary one.
fn page_size(file: &File) -> Result<usize, DpdkError> {
    let status = statfs::fstatfs(file).map_err(|errno| DpdkError::from_errno("fstatfs", errno as i32))?;
    if status.filesystem_type() == statfs::HUGETLBFS_MAGIC {
        return Ok(usize::try_from(status.block_size()).unwrap_or(HUGE_PAGE).max(SMALL_PAGE));
    }
    Ok(SMALL_PAGE)
}

/// Makes the file `bytes` long with all memory set aside; whether it had that length before.
fn prepare(file: &File, bytes: usize) -> Result<bool, DpdkError> {
    let failed = |call| {
        move |error: std::io::Error| {
            let errno = error.raw_os_error().unwrap_or(0);
            let kind = if errno == Errno::ENOSPC as i32 { ErrorKind::OutOfMemory } else { ErrorKind::Other };
            DpdkError::from_errno(call, errno).with_kind(kind)
        }
    };
    let wanted = u64::try_from(bytes).unwrap_or(u64::MAX);
    let adopted = file.metadata().map_err(failed("fstat"))?.len() == wanted;
    if !adopted {
        file.set_len(0).map_err(failed("ftruncate"))?;
        file.set_len(wanted).map_err(failed("ftruncate"))?;
    }
    // Without this a full tmpfs would show as SIGBUS at the first touch.
    let length = libc::off_t::try_from(bytes).unwrap_or(libc::off_t::MAX);
    match fallocate(file, FallocateFlags::empty(), 0, length) {
        Ok(()) | Err(Errno::EOPNOTSUPP) => Ok(adopted),
        Err(errno) => Err(failed("fallocate")(errno.into())),
    }
}

#[cfg(test)]
mod tests;
