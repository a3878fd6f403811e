//! What a connection is known by, and the keyed hash that spreads connections over the index.

use crate::address::Address;

/// What packets of a connection are found by: protocol, CIP, cport, VIP, vport.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct Key {
    /// CIP.
    pub client: Address,
    /// VIP.
    pub virtual_: Address,
    /// vport; 0 where the protocol has none.
    pub virtual_port: u16,
    /// cport; 0 where the protocol has none.
    pub client_port: u16,
    /// IP protocol number (IANA).
    pub protocol: u8,
}

impl Key {
    /// Both ports as one word, cport above; in this order they are neighbours in memory, so that reading them is one load.
    #[inline(always)]
    pub const fn ports(&self) -> u32 {
        (self.client_port as u32) << 16 | self.virtual_port as u32
    }
}

/// A hash with secret keys, so that nobody outside can choose addresses and ports that meet in one bucket.
///
/// Built on the folded product of two 64-bit words (the high half of the 128-bit product over the low half), each mixed with
/// a key first. Values are never shown to anyone and differ from worker to worker and start to start.
#[derive(Clone, Debug)]
pub struct Hasher {
    keys: [u64; 4],
}

const LOW_64: u128 = u64::MAX as u128;

#[inline]
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    (product & LOW_64) as u64 ^ (product >> 64) as u64
}

/// One step of `SplitMix64` (Steele, Lea and Flood, 2014): another value for each `n`, with about half its bits set.
const fn spread(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

impl Hasher {
    /// A hash with keys made from `seed`, which is to come from a secure random source.
    pub const fn new(seed: [u64; 4]) -> Self {
        // Spread out first: a key with few bits set would mix badly. An odd multiplier loses nothing of what it multiplies.
        Self { keys: [spread(seed[0]), spread(seed[1]), spread(seed[2]), spread(seed[3]) | 1] }
    }

    /// The hash of `key`: 64 bits, all of them of use. Cost: two multiplications for IPv4, four for IPv6.
    #[inline]
    pub fn hash(&self, key: &Key) -> u64 {
        let [k0, k1, k2, k3] = self.keys;
        let ports = u64::from(key.ports()) << 8 | u64::from(key.protocol);
        let [client_high, client_low] = [(key.client.0 >> 64) as u64, (key.client.0 & LOW_64) as u64];
        let [vip_high, vip_low] = [(key.virtual_.0 >> 64) as u64, (key.virtual_.0 & LOW_64) as u64];
        let mixed = if client_high | vip_high == 0 {
            // IPv4: both addresses fit into one word, what is left of the mapped prefix being the same for all.
            fold(((client_low << 32) ^ vip_low) ^ k0, ports ^ k1)
        } else {
            let client = fold(client_high ^ k0, client_low ^ k1);
            let vip = fold(vip_high ^ k2, vip_low ^ k3);
            fold(client ^ ports, vip.rotate_left(32) ^ k1)
        };
        fold(mixed ^ k2, k3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn v4(n: u32) -> Key {
        Key {
            client: Address::v4(0xc633_6400 + (n >> 12)),
            virtual_: Address::v4(0x0a0a_1858),
            client_port: (n & 0xfff) as u16,
            virtual_port: 80,
            protocol: 6,
        }
    }

    fn v6(n: u32) -> Key {
        let v4 = v4(n);
        Key { client: Address(0x2001_0db8 << 96 | u128::from(n >> 12)), virtual_: Address(0xfd00 << 112 | 0x88), ..v4 }
    }

    /// Keys that differ little, as real ones do, spread as evenly as random numbers would: chi squared over several bit ranges.
    fn assert_even(hash: impl Fn(u32) -> u64) {
        const KEYS: u32 = 200_000;
        for shift in [0, 32 - 12, 64 - 12] {
            let mut counts = vec![0u32; 4096];
            (0..KEYS).for_each(|n| counts[((hash(n) >> shift) & 4095) as usize] += 1);
            let expected = f64::from(KEYS) / 4096.0;
            let chi: f64 = counts.iter().map(|c| (f64::from(*c) - expected).powi(2) / expected).sum();
            // 4095 degrees of freedom: mean 4095, standard deviation 90.
            assert!((3500.0..4700.0).contains(&chi), "bits from {shift}: {chi}");
        }
        assert_eq!((0..KEYS).map(hash).collect::<HashSet<_>>().len(), KEYS as usize);
    }

    #[test]
    fn neighbouring_clients_spread_evenly() {
        for seed in [[0, 0, 0, 0], [1, 2, 3, 4], [0x0123_4567_89ab_cdef, u64::MAX, 1 << 63, 0x8796_a5b4_c3d2_e1f0]] {
            let hasher = Hasher::new(seed);
            assert_even(|n| hasher.hash(&v4(n)));
            assert_even(|n| hasher.hash(&v6(n)));
        }
    }

    #[test]
    fn every_field_and_every_key_counts() {
        for key in [v4(5), v6(5)] {
            let others = [
                Key { client: Address(key.client.0 ^ 1), ..key },
                Key { client: Address(key.client.0 ^ 1 << 127), ..key },
                Key { virtual_: Address(key.virtual_.0 ^ 1), ..key },
                Key { client_port: key.client_port ^ 1, ..key },
                Key { virtual_port: key.virtual_port ^ 1, ..key },
                Key { protocol: 17, ..key },
                Key { client: key.virtual_, virtual_: key.client, ..key },
            ];
            let hasher = Hasher::new([1, 2, 3, 4]);
            for other in others {
                assert_ne!(hasher.hash(&key), hasher.hash(&other));
            }
            for seed in [[9, 2, 3, 4], [1, 9, 3, 4], [1, 2, 9, 4], [1, 2, 3, 9]] {
                assert_ne!(hasher.hash(&key), Hasher::new(seed).hash(&key));
            }
        }
    }
}
