//! Hints to the cache; never needed for correctness.

/// Asks for the cache line of `target` ahead of its use; one instruction, never faults.
#[inline(always)]
pub fn read<T>(target: &T) {
    address::<NEAR>(core::ptr::from_ref(target).cast());
}

/// Asks for the cache line of `slice[index]`; an index out of range does nothing.
#[inline(always)]
pub fn slot<T>(slice: &[T], index: usize) {
    if let Some(target) = slice.get(index) {
        read(target);
    }
}

/// Into all of the core's caches: `_MM_HINT_T0`.
pub(crate) const NEAR: i32 = 3;
/// Into its second cache, to which more lines can be on their way at once than to the first one: `_MM_HINT_T1`.
pub(crate) const FAR: i32 = 2;

/// Asks for the line at `target`, whatever it points to.
#[inline(always)]
pub(crate) fn address<const HINT: i32>(target: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: PREFETCHh is a hint: it exists on every x86-64 CPU and does not fault, whatever the address.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<HINT>(target.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = target;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_index_is_harmless() {
        let numbers = [1u64, 2, 3];
        read(&numbers);
        for index in [0, 2, 3, usize::MAX] {
            slot(&numbers, index);
        }
        slot::<u64>(&[], 0);
    }
}
