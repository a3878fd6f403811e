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

/// Both addresses of a packet, CIP first, as the words that its header has; the first byte is the lowest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Addresses {
    /// Of IPv4.
    V4(u64),
    /// Of IPv6.
    V6([u64; 4]),
}

#[expect(clippy::cast_possible_truncation, reason = "words are taken apart on purpose")]
impl Key {
    /// Both addresses as a packet's header has them.
    #[inline]
    pub const fn addresses(&self) -> Addresses {
        let (client, vip) = (self.client.0, self.virtual_.0);
        if self.client.is_v4() && self.virtual_.is_v4() {
            return Addresses::V4(((client << 32 | vip & 0xffff_ffff) as u64).swap_bytes());
        }
        let words = [(client >> 64) as u64, client as u64, (vip >> 64) as u64, vip as u64];
        Addresses::V6([words[0].swap_bytes(), words[1].swap_bytes(), words[2].swap_bytes(), words[3].swap_bytes()])
    }

    /// Both ports as a packet's header has them, cport first; the first byte is the lowest.
    #[inline]
    pub const fn ports(&self) -> u32 {
        ((self.client_port as u32) << 16 | self.virtual_port as u32).swap_bytes()
    }

    /// The key with these addresses and ports, which are as a packet's header has them.
    #[inline]
    pub const fn of(addresses: Addresses, ports: u32, protocol: u8) -> Self {
        let (client, virtual_) = match addresses {
            Addresses::V4(both) => {
                let both = both.swap_bytes();
                (Address::v4((both >> 32) as u32), Address::v4(both as u32))
            }
            Addresses::V6([a, b, c, d]) => (
                Address((a.swap_bytes() as u128) << 64 | b.swap_bytes() as u128),
                Address((c.swap_bytes() as u128) << 64 | d.swap_bytes() as u128),
            ),
        };
        let ports = ports.swap_bytes();
        Self { client, virtual_, virtual_port: ports as u16, client_port: (ports >> 16) as u16, protocol }
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
        self.mix(self.word(key.addresses()), key.ports(), key.protocol)
    }

    /// One word for both addresses: those of IPv4 themselves, and a digest of those of IPv6.
    #[inline]
    pub const fn word(&self, addresses: Addresses) -> u64 {
        match addresses {
            Addresses::V4(both) => both,
            Addresses::V6(words) => self.digest(&words),
        }
    }

    /// [`word`](Self::word) of IPv6 addresses. Nobody who does not know the keys can find two pairs with the same.
    #[inline(always)]
    pub const fn digest(&self, words: &[u64; 4]) -> u64 {
        let [k0, k1, k2, k3] = self.keys;
        fold(words[0] ^ k0, words[1] ^ k1) ^ fold(words[2] ^ k2, words[3] ^ k3).rotate_left(32)
    }

    /// The hash of a key with this [`word`](Self::word) for its addresses.
    #[inline(always)]
    pub const fn mix(&self, addresses: u64, ports: u32, protocol: u8) -> u64 {
        let [k0, k1, k2, k3] = self.keys;
        let ports = (ports as u64) << 8 | protocol as u64;
        fold(fold(addresses ^ k0, ports ^ k1) ^ k2, k3)
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

    #[test]
    fn a_key_is_the_same_in_words() {
        for key in [v4(5), v6(5), Key { virtual_: v4(1).virtual_, ..v6(5) }, Key { client: Address(0), ..v4(5) }] {
            assert_eq!(Key::of(key.addresses(), key.ports(), key.protocol), key);
        }
        assert_eq!(v4(5).addresses(), Addresses::V4(u64::from_le_bytes([0xc6, 0x33, 0x64, 0, 10, 10, 24, 0x58])));
        assert_eq!(v4(5).ports(), u32::from_le_bytes([0, 5, 0, 80]));
        let Addresses::V6(words) = v6(5).addresses() else { panic!("of IPv6") };
        assert_eq!(words[0].to_le_bytes(), [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0]);
        assert_eq!(words[3].to_le_bytes(), [0, 0, 0, 0, 0, 0, 0, 0x88]);
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
