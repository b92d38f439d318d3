//! A fast hash for keys that the store itself gives out, so that nobody can choose them to collide.

use std::hash::{BuildHasherDefault, Hasher};

/// Hashes numbers by a multiplication.
#[derive(Debug, Clone, Copy, Default)]
pub struct KeyHasher(u64);

/// Makes hashes of numbers by a multiplication.
pub type KeyHash = BuildHasherDefault<KeyHasher>;

/// An odd number without pattern: 2^64 divided by the golden ratio.
const MIX: u64 = 0x9E37_79B9_7F4A_7C15;

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        // The table takes its lowest bits, and a multiplication mixes into the highest.
        self.0.rotate_left(26)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(MIX);
    }

    fn write_i64(&mut self, number: i64) {
        self.write_u64(number.cast_unsigned());
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }
}
