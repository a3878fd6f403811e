//! SCTP's checksum (RFC 9260 appendix A), mended where four bytes under it changed, without reading the others.
//!
//! A CRC is linear: changing bits of a message changes its checksum by the checksum of those bits alone, whatever surrounds
//! them. So the change is the changed bits times a power of x, modulo the polynomial.

/// The polynomial of CRC-32C (Castagnoli), lowest power in the highest bit.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// The product of two polynomials modulo that one. Cost: at most 32 steps.
const fn multiply(a: u32, b: u32) -> u32 {
    let (mut product, mut b, mut bit) = (0, b, 1 << 31);
    while bit != 0 {
        if a & bit != 0 {
            product ^= b;
        }
        b = if b & 1 != 0 { b >> 1 ^ POLYNOMIAL } else { b >> 1 };
        bit >>= 1;
    }
    product
}

/// x to the power of 8, 16, 32, ...: by how much a polynomial grows for one byte more behind it, for two, four, ...
static POWERS: [u32; 16] = {
    let mut powers = [1 << (31 - 8); 16];
    let mut i = 1;
    while i < 16 {
        powers[i] = multiply(powers[i - 1], powers[i - 1]);
        i += 1;
    }
    powers
};

/// The checksum after the first four bytes of a message of `len` bytes changed by `difference` (exclusive or), as the header
/// holds it. Cost: at most 17 multiplications of 32 steps, whatever the length.
pub fn mend(checksum: [u8; 4], difference: [u8; 4], len: u16) -> [u8; 4] {
    let mut change = u32::from_le_bytes(difference);
    for (bit, power) in POWERS.iter().enumerate() {
        if len >> bit & 1 != 0 {
            change = multiply(change, *power);
        }
    }
    // The checksum is sent lowest byte first (RFC 9260 appendix A).
    (u32::from_le_bytes(checksum) ^ change).to_le_bytes()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The checksum bit by bit, as the standard says it.
    pub fn plain(bytes: &[u8]) -> [u8; 4] {
        let mut crc = u32::MAX;
        for byte in bytes {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = if crc & 1 != 0 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
            }
        }
        (!crc).to_le_bytes()
    }

    #[test]
    fn plain_crc_is_the_one_that_everybody_checks_with() {
        assert_eq!(plain(b"123456789"), 0xe306_9283_u32.to_le_bytes());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn mended_crc_is_that_of_the_changed_message(mut bytes in proptest::collection::vec(any::<u8>(), 4..2000), change: [u8; 4]) {
            let old = plain(&bytes);
            for (byte, change) in bytes.iter_mut().zip(change) {
                *byte ^= change;
            }
            let len = u16::try_from(bytes.len()).unwrap();
            prop_assert_eq!(mend(old, change, len), plain(&bytes));
        }
    }
}
