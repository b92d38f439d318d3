//! A vector that can be calculated with.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::limits::{COMPONENT_MAX, DIMENSIONS_MAX};

/// 1 to [`DIMENSIONS_MAX`] finite numbers of at most [`COMPONENT_MAX`], checked where it is made; cheap to clone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<f32>", into = "Vec<f32>")]
pub struct Vector(Arc<[f32]>);

impl Vector {
    /// Returns the checked vector.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is empty or a component is NaN, infinite or over [`COMPONENT_MAX`], with the place;
    /// [`Error::TooLarge`] when it has more than [`DIMENSIONS_MAX`] components.
    pub fn new(components: impl Into<Vec<f32>>) -> Result<Self, Error> {
        let components = components.into();
        check(&components)?;
        Ok(Self(components.into()))
    }

    /// Returns the checked vector of components that are made one by one, without a copy in between.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn of(components: impl Iterator<Item = f32>) -> Result<Self, Error> {
        let components: Arc<[f32]> = components.collect();
        check(&components)?;
        Ok(Self(components))
    }

    /// Returns the components.
    #[must_use]
    pub fn as_slice(&self) -> &[f32] {
        &self.0
    }

    /// Returns how many components it has.
    #[must_use]
    pub fn dimensions(&self) -> usize {
        self.0.len()
    }

    /// Returns whether every component is 0, so that it has no direction.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0.iter().all(|value| *value == 0.0)
    }
}

/// Refuses what is no vector.
fn check(components: &[f32]) -> Result<(), Error> {
    if components.is_empty() {
        return Err(Error::invalid("vector", "it has no components"));
    }
    if components.len() > DIMENSIONS_MAX {
        let (bytes, bytes_max) = (size_of_val(components) as u64, 4 * DIMENSIONS_MAX as u64);
        return Err(Error::TooLarge { what: "vector".to_owned(), bytes, bytes_max });
    }
    // NaN lies in no range.
    let is_usable = |value: &f32| (-COMPONENT_MAX..=COMPONENT_MAX).contains(value);
    // All of them first, which many at a time are looked at for.
    if components.iter().fold(true, |all, value| all & is_usable(value)) {
        return Ok(());
    }
    if let Some(place) = components.iter().position(|value| !is_usable(value)) {
        let reason = format!("component {place} is not a number within ±{COMPONENT_MAX:e}");
        return Err(Error::invalid("vector", reason));
    }
    Ok(())
}

impl AsRef<[f32]> for Vector {
    fn as_ref(&self) -> &[f32] {
        &self.0
    }
}

impl TryFrom<Vec<f32>> for Vector {
    type Error = Error;

    fn try_from(components: Vec<f32>) -> Result<Self, Error> {
        Self::new(components)
    }
}

impl From<Vector> for Vec<f32> {
    fn from(vector: Vector) -> Self {
        vector.0.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_calculated_with_is_refused() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1.1e15, -1.1e15] {
            let refused = Vector::new(vec![1.0, bad]).unwrap_err();
            assert!(refused.to_string().contains("component 1"), "{refused}");
        }
        assert!(Vector::new(vec![]).is_err());
        assert!(matches!(Vector::new(vec![1.0; 1_000_000]), Err(Error::TooLarge { .. })));
        assert!(Vector::new(vec![1e15, -1e15, 1e-45, 0.0]).is_ok());
        assert!(Vector::new(vec![1.0; DIMENSIONS_MAX]).is_ok());
    }

    #[test]
    fn decoding_a_vector_checks_it_too() {
        let bytes = postcard::to_stdvec(&vec![1.0, f32::NAN]).unwrap();
        assert!(postcard::from_bytes::<Vector>(&bytes).is_err());
        let bytes = postcard::to_stdvec(&Vector::new(vec![1.0, -2.5]).unwrap()).unwrap();
        assert_eq!(postcard::from_bytes::<Vector>(&bytes).unwrap().as_slice(), [1.0, -2.5]);
    }
}
