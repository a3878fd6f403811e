//! Several small numbers at once.

/// Which of sixteen bytes equal `wanted`: bit `n` for byte `n`.
///
/// Cost: seven instructions on x86-64.
#[inline(always)]
#[cfg_attr(target_arch = "x86_64", expect(clippy::cast_ptr_alignment, reason = "an unaligned load"))]
pub fn equal(bytes: &[u8; 16], wanted: u8) -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{__m128i, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_set1_epi8};
        // SAFETY: sixteen bytes are there to be read, and SSE2 is part of every x86-64 CPU.
        let bytes = unsafe { _mm_loadu_si128(bytes.as_ptr().cast::<__m128i>()) };
        // SAFETY: SSE2, as above.
        let wanted = unsafe { _mm_set1_epi8(wanted.cast_signed()) };
        // SAFETY: SSE2, as above.
        let same = unsafe { _mm_cmpeq_epi8(bytes, wanted) };
        // SAFETY: SSE2, as above.
        unsafe { _mm_movemask_epi8(same) }.cast_unsigned()
    }
    #[cfg(not(target_arch = "x86_64"))]
    one_by_one(bytes, wanted)
}

/// [`equal`] where there is no such instruction.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn one_by_one(bytes: &[u8; 16], wanted: u8) -> u32 {
    bytes.iter().zip(0..).map(|(byte, bit)| u32::from(*byte == wanted) << bit).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_told_apart() {
        for place in 0..16 {
            let mut bytes = [1, 0x80, 0xff, 0, 0x7f, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
            bytes[place] = 0xab;
            assert_eq!(equal(&bytes, 0xab), 1 << place);
            for wanted in bytes {
                assert_eq!(equal(&bytes, wanted), one_by_one(&bytes, wanted));
            }
        }
        assert_eq!(equal(&[7; 16], 7), 0xffff);
        assert_eq!(equal(&[7; 16], 8), 0);
    }
}
