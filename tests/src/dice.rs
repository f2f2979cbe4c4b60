//! Numbers drawn from a seed (xorshift), the same on every machine.

/// What draws them.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Draws from `state` on, which must not be 0.
    pub fn at(state: u64) -> Self {
        Self(state)
    }

    /// Draws from `seed` on, which may be any number, small ones too.
    pub fn of(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number; the lowest bits are the least random.
    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// At least 0 and below `end`; 0 where that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.draw() >> 16) as usize % end.max(1)
    }

    /// At least 0 and below 1.
    pub fn share(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1_u64 << 53) as f64
    }
}
