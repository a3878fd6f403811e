//! So many a second, and a tenth of a second's worth at once.

/// Hundredths that one frame costs, and that one tick earns for each frame a second.
const ONE: u64 = 100;

#[derive(Clone)]
pub struct Bucket {
    pub rate: u32,
    hundredths: u64,
}

impl Bucket {
    pub fn new(rate: u32) -> Self {
        Self { rate, hundredths: Self::most(rate) }
    }

    fn most(rate: u32) -> u64 {
        if rate == 0 { 0 } else { (u64::from(rate) * ONE / 10).max(ONE) }
    }

    pub fn set_rate(&mut self, rate: u32) {
        self.rate = rate;
        self.hundredths = self.hundredths.min(Self::most(rate));
    }

    pub fn pass(&mut self, ticks: u32) {
        self.hundredths = (self.hundredths + u64::from(ticks) * u64::from(self.rate)).min(Self::most(self.rate));
    }

    pub fn take(&mut self) -> bool {
        let enough = self.hundredths >= ONE;
        if enough {
            self.hundredths -= ONE;
        }
        enough
    }
}
