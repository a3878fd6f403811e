//! The internet checksum (RFC 1071): whole, in parts, and mended in place (RFC 1624).

/// Sum of 16-bit words, not yet folded. Parts add up by `+`, as long as every part but the last has an even length.
///
/// Cost: about one cycle per 8 bytes or better; for slices of up to 64 KiB no overflow however many are added.
#[inline]
pub fn sum(bytes: &[u8]) -> u64 {
    let (quads, rest) = bytes.as_chunks::<4>();
    let mut total: u64 = quads.iter().map(|quad| u64::from(u32::from_be_bytes(*quad))).sum();
    let mut last = [0; 4];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    total += u64::from(u32::from_be_bytes(last));
    total
}

/// Folds a sum into the checksum: the ones' complement of the ones' complement sum.
#[inline(always)]
pub fn finish(sum: u64) -> u16 {
    !fold(sum)
}

/// As [`finish`], of fewer than 65 536 words of 16 bits.
#[inline(always)]
pub fn finish_few(sum: u32) -> u16 {
    !fold_half(sum)
}

/// Makes a sum one of two words at most, to which others can be added for [`finish_few`].
#[inline(always)]
pub fn shorten(sum: u64) -> u32 {
    let sum = fold_once(sum);
    (sum >> 16) + (sum & 0xffff)
}

/// Ones' complement sum in 32 bits.
#[inline(always)]
fn fold_once(sum: u64) -> u32 {
    let half = |word: u64| u32::try_from(word & 0xffff_ffff).unwrap_or_default();
    let (sum, carry) = half(sum).overflowing_add(half(sum >> 32));
    sum.wrapping_add(u32::from(carry))
}

/// Ones' complement sum in 16 bits.
#[inline(always)]
fn fold(sum: u64) -> u16 {
    fold_half(fold_once(sum))
}

/// The same of a sum of few words.
#[inline(always)]
fn fold_half(sum: u32) -> u16 {
    // The high half is the sum of both halves with the carry of the low one, which is the same sum.
    let both = sum.wrapping_add(sum.rotate_left(16));
    u16::try_from(both >> 16).unwrap_or_default()
}

/// Checksum over `bytes`; 0 when they contain their own, right checksum.
#[inline]
pub fn internet(bytes: &[u8]) -> u16 {
    finish(sum(bytes))
}

/// Sum of the IPv4 pseudo-header of a TCP or UDP segment of `len` bytes (RFC 9293 section 3.1).
#[inline]
pub fn pseudo_v4(source: [u8; 4], destination: [u8; 4], protocol: u8, len: u16) -> u64 {
    sum(&source) + sum(&destination) + u64::from(protocol) + u64::from(len)
}

/// Sum of the IPv6 pseudo-header of a segment of `len` bytes (RFC 8200 section 8.1).
#[inline]
pub fn pseudo_v6(source: &[u8; 16], destination: &[u8; 16], next_header: u8, len: u32) -> u64 {
    sum(source) + sum(destination) + u64::from(next_header) + u64::from(len)
}

/// Checksum of a segment behind a pseudo-header; 0 when the segment contains its own, right checksum.
#[inline]
pub fn segment(pseudo: u64, segment: &[u8]) -> u16 {
    finish(pseudo + sum(segment))
}

/// Checksum of a UDP segment to send: as [`segment`], but never 0, which would mean none (RFC 768).
#[inline]
pub fn udp_segment(pseudo: u64, bytes: &[u8]) -> u16 {
    match segment(pseudo, bytes) {
        0 => 0xffff,
        checksum => checksum,
    }
}

/// The checksum after one 16-bit word under it changed from `old` to `new` (RFC 1624 equation 3).
#[inline(always)]
pub fn update(checksum: u16, old: u16, new: u16) -> u16 {
    finish_few(u32::from(!checksum) + u32::from(!old) + u32::from(new))
}

/// The checksum after `old`, at an even place under it, changed to `new` of the same, even length (RFC 1624).
#[inline]
pub fn update_bytes(checksum: u16, old: &[u8], new: &[u8]) -> u16 {
    finish(u64::from(!checksum) + u64::from(!fold(sum(old))) + sum(new))
}
