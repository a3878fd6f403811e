//! Several small numbers at once.

/// Which of eight 16-bit numbers equal `wanted`: bits `2n` and `2n + 1` for number `n`, and no others.
///
/// Cost: five instructions on x86-64.
#[inline(always)]
#[cfg_attr(target_arch = "x86_64", expect(clippy::cast_ptr_alignment, reason = "an unaligned load"))]
pub fn equal(numbers: &[u16; 8], wanted: u16) -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{__m128i, _mm_cmpeq_epi16, _mm_loadu_si128, _mm_movemask_epi8, _mm_set1_epi16};
        // SAFETY: sixteen bytes are there to be read, and SSE2 is part of every x86-64 CPU.
        let numbers = unsafe { _mm_loadu_si128(numbers.as_ptr().cast::<__m128i>()) };
        // SAFETY: SSE2, as above.
        let wanted = unsafe { _mm_set1_epi16(wanted.cast_signed()) };
        // SAFETY: SSE2, as above.
        let same = unsafe { _mm_cmpeq_epi16(numbers, wanted) };
        // SAFETY: SSE2, as above.
        unsafe { _mm_movemask_epi8(same) }.cast_unsigned()
    }
    #[cfg(not(target_arch = "x86_64"))]
    one_by_one(numbers, wanted)
}

/// [`equal`] where there is no such instruction.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn one_by_one(numbers: &[u16; 8], wanted: u16) -> u32 {
    numbers.iter().zip((0..).step_by(2)).map(|(number, bit)| (u32::from(*number == wanted) * 3) << bit).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_told_apart() {
        for place in 0..8 {
            let mut numbers = [1, 0x100, 0xffff, 0, 0x8000, 0x7fff, 2, 3];
            numbers[place] = 0xabcd;
            assert_eq!(equal(&numbers, 0xabcd), 3 << (2 * place));
            for wanted in numbers {
                assert_eq!(equal(&numbers, wanted), one_by_one(&numbers, wanted));
            }
        }
        assert_eq!(equal(&[7; 8], 7), 0xffff);
        assert_eq!(equal(&[7; 8], 8), 0);
    }
}
