//! An embedder without a model, to try things out.

use super::embedder::{BoxError, Embedder};

/// **Simple, for trying things out**: hashes a text's words, pairs of words and parts of words into a vector.
///
/// It needs no model and no network, and answers the same on every machine. Texts that share words are near each other; texts
/// that mean the same in other words are not. Plug in a real model by [`Embedder`].
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), larder::BoxError> {
/// use larder::{Embedder, HashingEmbedder};
///
/// let vectors = HashingEmbedder::default().embed(&["a cat", "the cat", "some prose"]).await?;
/// let cosine = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
/// assert!(cosine(&vectors[0], &vectors[1]) > cosine(&vectors[0], &vectors[2]));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct HashingEmbedder {
    dimensions: usize,
    model: String,
}

/// Words that say little, so that they count for little.
const COMMON_WEIGHT: f32 = 0.2;

impl HashingEmbedder {
    /// Returns an embedder whose vectors have so many components. More tell more words apart.
    #[must_use]
    pub fn new(dimensions: usize) -> Self {
        Self { dimensions, model: format!("larder-hashing-1-{dimensions}") }
    }

    fn embed_one(&self, text: &str) -> Vec<f32> {
        let mut vector = vec![0.0; self.dimensions];
        let words: Vec<String> = super::words::words(text).map(str::to_lowercase).collect();
        for word in &words {
            let weight = if super::words::is_common(word) { COMMON_WEIGHT } else { 1.0 };
            add(&mut vector, &["w", word], weight);
            let letters: Vec<char> = word.chars().collect();
            for part in letters.windows(4) {
                add(&mut vector, &["p", &part.iter().collect::<String>()], weight * 0.3);
            }
        }
        for pair in words.windows(2) {
            if let [first, second] = pair {
                add(&mut vector, &["b", first, second], 0.3);
            }
        }
        normalised(vector)
    }
}

impl Default for HashingEmbedder {
    /// Returns one of 256 components.
    fn default() -> Self {
        Self::new(256)
    }
}

impl Embedder for HashingEmbedder {
    fn model(&self) -> &str {
        &self.model
    }

    fn dimensions(&self) -> usize {
        self.dimensions
    }

    async fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, BoxError> {
        Ok(texts.iter().map(|text| self.embed_one(text)).collect())
    }
}

/// Adds a feature at the place, and with the sign, that its hash says.
fn add(vector: &mut [f32], parts: &[&str], weight: f32) {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part.as_bytes()).update(&[0]);
    }
    let [a, b, c, d, sign, ..] = *hasher.finalize().as_bytes();
    let place = u32::from_le_bytes([a, b, c, d]) as usize % vector.len().max(1);
    if let Some(component) = vector.get_mut(place) {
        *component += if sign & 1 == 0 { weight } else { -weight };
    }
}

/// A text without words has no direction of its own: it gets one, since the cosine of zeros is none.
fn normalised(mut vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|component| component * component).sum::<f32>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|component| *component /= length);
    } else if let Some(first) = vector.first_mut() {
        *first = 1.0;
    }
    vector
}
