//! The texts and their vectors; `python/peer.py` makes the same ones.

/// Components of each vector.
pub const DIMENSIONS: u64 = 384;

/// The text of a number.
#[must_use]
pub fn text(number: u64) -> String {
    format!("text number {number}, of which a model makes a vector")
}

/// The vector of a number: whole numbers, which no rounding changes.
#[must_use]
pub fn vector(number: u64) -> Vec<f32> {
    (0..DIMENSIONS).map(|at| ((number * 31 + at * 7) % 1_000_003) as f32).collect()
}

/// The model.
///
/// # Panics
/// On a text that [`text`] did not make.
#[must_use]
pub fn embed(text: &str) -> Vec<f32> {
    let number = text.split([' ', ',']).nth(2).and_then(|word| word.parse().ok());
    match number {
        Some(number) => vector(number),
        None => panic!("{text:?} is no text of this run"),
    }
}
