//! Where all choices of a case come from: a seed, or bytes that a fuzzer gives.

/// A source of choices that is the same in every run.
pub enum Choices<'a> {
    /// `SplitMix64` from a seed, without end.
    Seed(u64),
    /// A fuzzer's bytes, then nothing but zeros.
    #[allow(dead_code, reason = "seeds are for tests, bytes for cargo-fuzz")]
    Bytes(&'a [u8]),
}

impl Choices<'_> {
    /// Whether nothing is left to choose.
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Bytes([]))
    }

    pub fn byte(&mut self) -> u8 {
        match self {
            Self::Seed(_) => self.wide() as u8,
            Self::Bytes(bytes) => match bytes.split_first() {
                Some((first, rest)) => {
                    *bytes = rest;
                    *first
                }
                None => 0,
            },
        }
    }

    fn wide(&mut self) -> u64 {
        match self {
            Self::Seed(state) => {
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let z = (*state ^ *state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
                z ^ z >> 31
            }
            Self::Bytes(_) => (0..8).fold(0, |n, _| n << 8 | u64::from(self.byte())),
        }
    }

    /// A number below `n`, which is at least 1.
    pub fn below(&mut self, n: usize) -> usize {
        match n {
            0 | 1 => 0,
            2..=256 if matches!(self, Self::Bytes(_)) => usize::from(self.byte()) % n,
            257..=0x1_0000 if matches!(self, Self::Bytes(_)) => usize::from(self.short()) % n,
            _ => (self.wide() % n as u64) as usize,
        }
    }

    pub fn short(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        // A fuzzer's zeros, and so the end of its bytes, mean the plain case.
        self.below(n) == n - 1
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.byte()).collect()
    }
}
