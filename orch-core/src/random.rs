//! Randomness as a contract: names, uids and jitter come from a generator that can be seeded.

use std::{fmt, sync::Arc};

use parking_lot::Mutex;
use rand_chacha::ChaCha12Rng;
use rand_core::{Rng as _, SeedableRng as _};

/// A source of random bits, shared by reference. Object-safe; never blocks for long.
pub trait Random: Send + Sync + fmt::Debug + 'static {
    /// The next 64 bits.
    fn next_u64(&self) -> u64;

    /// Fills a buffer.
    fn fill(&self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let bits = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&bits[..chunk.len()]);
        }
    }

    /// A number in `0..bound`, without bias. `bound` must not be zero.
    ///
    /// # Panics
    /// If `bound` is zero.
    fn below(&self, bound: u64) -> u64 {
        assert!(bound > 0, "a bound of zero leaves nothing to choose from");
        let zone = u64::MAX - u64::MAX % bound;
        loop {
            let bits = self.next_u64();
            if bits < zone {
                return bits % bound;
            }
        }
    }

    /// A number in `0.0..1.0`.
    fn unit(&self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A random (version 4) UUID in lower case, as `metadata.uid` has it.
    fn uuid(&self) -> String {
        let mut bytes = [0u8; 16];
        self.fill(&mut bytes);
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        let digit = |half: u8| char::from_digit(half.into(), 16).unwrap_or('0');
        let mut text = String::with_capacity(36);
        for (at, byte) in bytes.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            text.extend([digit(byte >> 4), digit(byte & 15)]);
        }
        text
    }

    /// A suffix for generated names, from the letters that upstream uses (no vowels, no look-alikes).
    ///
    /// Source: `k8s.io/apimachinery/pkg/util/rand`, `String`.
    fn name_suffix(&self, length: usize) -> String {
        const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        (0..length)
            .map(|_| char::from(LETTERS[self.below(LETTERS.len() as u64) as usize]))
            .collect()
    }
}

impl<R: Random + ?Sized> Random for Arc<R> {
    fn next_u64(&self) -> u64 {
        (**self).next_u64()
    }
}

/// A reproducible generator: the same seed gives the same sequence on every machine.
pub struct SeededRandom(Mutex<ChaCha12Rng>);

impl SeededRandom {
    /// A generator from a seed.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(ChaCha12Rng::seed_from_u64(seed)))
    }

    /// A generator seeded by the operating system: unpredictable, good enough for uids and tokens.
    ///
    /// # Panics
    /// If the operating system has no entropy to give.
    pub fn from_os() -> Self {
        let mut seed = [0u8; 32];
        getrandom::fill(&mut seed).expect("the operating system gives entropy");
        Self(Mutex::new(ChaCha12Rng::from_seed(seed)))
    }
}

impl fmt::Debug for SeededRandom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SeededRandom")
    }
}

impl Random for SeededRandom {
    fn next_u64(&self) -> u64 {
        self.0.lock().next_u64()
    }

    fn fill(&self, out: &mut [u8]) {
        self.0.lock().fill_bytes(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_one_sequence() {
        let (a, b) = (SeededRandom::new(7), SeededRandom::new(7));
        assert_eq!(a.uuid(), b.uuid());
        assert_eq!(a.name_suffix(5), b.name_suffix(5));
        assert_ne!(a.uuid(), SeededRandom::new(8).uuid());
    }

    #[test]
    fn uuids_are_version_four() {
        let uid = SeededRandom::from_os().uuid();
        assert_eq!(uid.len(), 36);
        assert_eq!(&uid[14..15], "4");
        assert!(matches!(&uid[19..20], "8" | "9" | "a" | "b"));
    }
}
