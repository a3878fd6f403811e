//! SipHash-1-3 (Aumasson, Bernstein: "`SipHash`: a fast short-input PRF"), with one round a block and three at the end.
//!
//! It is what Linux calls `hsiphash` on 64-bit machines, cut to 32 bits there.

/// The hash of a message under a key: `words` are its whole 8-byte blocks, little endian, and `last` is what is left of it, with
/// the message's length in bytes in the highest byte.
#[inline]
pub(super) fn siphash13(key: [u64; 2], words: &[u64], last: u64) -> u64 {
    let mut state =
        [key[0] ^ 0x736f_6d65_7073_6575, key[1] ^ 0x646f_7261_6e64_6f6d, key[0] ^ 0x6c79_6765_6e65_7261, key[1] ^ 0x7465_6462_7974_6573];
    for word in words.iter().copied().chain([last]) {
        state[3] ^= word;
        state = round(state);
        state[0] ^= word;
    }
    state[2] ^= 0xff;
    state = round(round(round(state)));
    state[0] ^ state[1] ^ state[2] ^ state[3]
}

#[inline]
const fn round([mut a, mut b, mut c, mut d]: [u64; 4]) -> [u64; 4] {
    a = a.wrapping_add(b);
    c = c.wrapping_add(d);
    b = b.rotate_left(13) ^ a;
    d = d.rotate_left(16) ^ c;
    a = a.rotate_left(32).wrapping_add(d);
    c = c.wrapping_add(b);
    d = d.rotate_left(21) ^ a;
    b = b.rotate_left(17) ^ c;
    [a, b, c.rotate_left(32), d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::{DefaultHasher, Hasher};

    #[test]
    fn it_agrees_with_the_standard_librarys_siphash_1_3_of_key_zero() {
        for message in [0_u32, 1, 80, 0x0a0a_1818, u32::MAX] {
            let mut hasher = DefaultHasher::new();
            hasher.write(&message.to_le_bytes());
            assert_eq!(siphash13([0, 0], &[], 4 << 56 | u64::from(message)), hasher.finish());
            hasher.write(&[7; 13]);
            let longer = [u64::from(message) | 0x0707_0707 << 32, 0x0707_0707_0707_0707];
            assert_eq!(siphash13([0, 0], &longer, 17 << 56 | 7), hasher.finish());
        }
    }

    #[test]
    fn both_halves_of_the_key_count() {
        let of = |key| siphash13(key, &[], 4 << 56);
        assert!(of([1, 0]) != of([0, 0]) && of([0, 1]) != of([0, 0]) && of([0, 1]) != of([1, 0]));
    }
}
