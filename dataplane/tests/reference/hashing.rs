//! `sh`, `dh` and `mh`: tables of buckets, and the hashes that find them.

use std::net::IpAddr;

use super::schedule::Candidate;

/// An address as one number; of IPv6 its four words, one upon the other.
fn folded(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(v4) => v4.to_bits(),
        IpAddr::V6(v6) => v6.octets().chunks(4).fold(0, |fold, word| fold ^ u32::from_be_bytes([word[0], word[1], word[2], word[3]])),
    }
}

/// The top eight bits of the product with 2^32 over the golden ratio, as the kernel's `hash_32` has it.
fn eight_bits(number: u32) -> u32 {
    number.wrapping_mul(0x61c8_8647) >> 24
}

fn open(candidates: &[Candidate], place: usize) -> Option<u32> {
    candidates.get(place).filter(|c| c.takes_new()).map(|c| c.server)
}

/// `dh`: 256 buckets, one for each member in turn; the VIP's decides.
pub fn destination(candidates: &[Candidate], vip: IpAddr) -> Option<u32> {
    let bucket = eight_bits(folded(vip)) as usize;
    open(candidates, bucket.checked_rem(candidates.len())?)
}

/// `sh`: 256 buckets, given to the members in order, as many in a row as each one's weight says but at least one.
pub fn source(candidates: &[Candidate], client: IpAddr, port: u16, fallback: bool) -> Option<u32> {
    if candidates.is_empty() {
        return None;
    }
    let mut buckets = Vec::new();
    while buckets.len() < 256 {
        for (place, candidate) in candidates.iter().enumerate() {
            for _ in 0..candidate.weight.clamp(1, 256) {
                buckets.push(place);
            }
        }
    }
    let hash = |offset: u32| (eight_bits(folded(client).wrapping_add(u32::from(port))) + offset) % 256;
    let home = hash(0);
    let taking = |bucket: u32| open(candidates, buckets[bucket as usize]);
    taking(home).or_else(|| if fallback { (0..256).find_map(|offset| taking(hash((home + offset) % 256))) } else { None })
}

/// How many buckets `mh` has.
const MAGLEV: u32 = 4093;

/// `SipHash` with one round a word and three at the end, over the four bytes of a number; the low half of the result.
fn half_siphash(key: u64, number: u32) -> u32 {
    let mut v = [key ^ 0x736f_6d65_7073_6575, key ^ 0x646f_7261_6e64_6f6d, key ^ 0x6c79_6765_6e65_7261, key ^ 0x7465_6462_7974_6573];
    let round = |v: &mut [u64; 4]| {
        v[0] = v[0].wrapping_add(v[1]);
        v[2] = v[2].wrapping_add(v[3]);
        v[1] = v[1].rotate_left(13) ^ v[0];
        v[3] = v[3].rotate_left(16) ^ v[2];
        v[0] = v[0].rotate_left(32);
        v[2] = v[2].wrapping_add(v[1]);
        v[0] = v[0].wrapping_add(v[3]);
        v[1] = v[1].rotate_left(17) ^ v[2];
        v[3] = v[3].rotate_left(21) ^ v[0];
        v[2] = v[2].rotate_left(32);
    };
    // The last word holds what is left of the message, and its length in the highest byte.
    let word = 4 << 56 | u64::from(number);
    v[3] ^= word;
    round(&mut v);
    v[0] ^= word;
    v[2] ^= 0xff;
    for _ in 0..3 {
        round(&mut v);
    }
    (v[0] ^ v[1] ^ v[2] ^ v[3]) as u32
}

fn where_hash(number: u32) -> u32 {
    half_siphash(2_654_435_761, number)
}

/// The owner of each of `mh`'s buckets, by place; empty when nobody ever had a weight. `v6`: the service's family.
pub fn maglev_table(candidates: &[Candidate], v6: bool) -> Vec<usize> {
    let mut weights = Vec::new();
    for candidate in candidates {
        weights.push(candidate.last_weight);
    }
    let greatest = weights.iter().copied().max().unwrap_or(0);
    if greatest == 0 {
        return Vec::new();
    }
    let divisor = (1..=greatest).rev().find(|n| weights.iter().all(|weight| weight % n == 0)).expect("1 divides all");
    let mut shift = 0;
    while (greatest / divisor) >> shift >= 64 {
        shift += 1;
    }
    let hashed = |candidate: &Candidate| {
        // The kernel reads the address as one of the service's family.
        let address = match candidate.address {
            IpAddr::V6(v6_address) if !v6 => (v6_address.to_bits() >> 96) as u32,
            IpAddr::V4(v4) if v6 => v4.to_bits(),
            address => folded(address),
        };
        address.wrapping_add(u32::from(candidate.port))
    };
    let (mut owners, mut taken) = (vec![None; MAGLEV as usize], 0);
    let mut next: Vec<u32> = vec![0; candidates.len()];
    while taken < MAGLEV {
        for (place, candidate) in candidates.iter().enumerate().filter(|(_, c)| c.last_weight > 0) {
            let (offset, skip) =
                (where_hash(hashed(candidate)) % MAGLEV, half_siphash(2_654_446_892, hashed(candidate)) % (MAGLEV - 1) + 1);
            for _ in 0..((candidate.last_weight / divisor) >> shift).max(1) {
                if taken == MAGLEV {
                    break;
                }
                loop {
                    let bucket = (u64::from(offset) + u64::from(next[place]) * u64::from(skip)) % u64::from(MAGLEV);
                    next[place] += 1;
                    if owners[bucket as usize].is_none() {
                        owners[bucket as usize] = Some(place);
                        taken += 1;
                        break;
                    }
                }
            }
        }
    }
    owners.into_iter().flatten().collect()
}

pub fn maglev(candidates: &[Candidate], table: &[usize], client: IpAddr, port: u16, fallback: bool) -> Option<u32> {
    let number = folded(client).wrapping_add(u32::from(port));
    let taking = |bucket: u32| table.get(bucket as usize).and_then(|place| open(candidates, *place));
    let home = where_hash(number) % MAGLEV;
    if let Some(server) = taking(home) {
        return Some(server);
    }
    if !fallback {
        return None;
    }
    (0..MAGLEV).find_map(|offset| taking(where_hash(number.wrapping_add((offset + home) % MAGLEV)) % MAGLEV))
}
