//! Nodes by their names.
//!
//! Start at [`NameTable`], which finds the nodes of a base; what was named since is in the overlay.

use std::hash::{BuildHasher, RandomState};

use super::base::Place;

/// Places of nodes by the hashes of their names, which a program's users choose: the hash is a secret of this table.
#[derive(Debug, Default)]
pub(super) struct NameTable {
    hasher: RandomState,
    /// A power of two, half of them empty (0); else a place and 1. Those behind the one that a hash says hold the same or another name.
    slots: Vec<Place>,
}

impl NameTable {
    /// Makes the table of the first `count` places.
    pub(super) fn of<'a>(count: usize, name: impl Fn(Place) -> &'a str) -> Self {
        let slot_count = if count == 0 { 0 } else { (count * 2).next_power_of_two() };
        let mut table = Self { hasher: RandomState::new(), slots: vec![0; slot_count] };
        for place in 0..count as Place {
            let mut at = table.first(name(place));
            while table.slots[at] != 0 {
                at = (at + 1) & (slot_count - 1);
            }
            table.slots[at] = place + 1;
        }
        table
    }

    fn first(&self, name: &str) -> usize {
        self.hasher.hash_one(name) as usize & (self.slots.len() - 1)
    }

    /// Shows every place that may have the name.
    pub(super) fn candidates(&self, name: &str) -> impl Iterator<Item = Place> {
        let first = if self.slots.is_empty() { 0 } else { self.first(name) };
        let (before, from) = self.slots.split_at(first);
        from.iter().chain(before).take_while(|slot| **slot != 0).map(|slot| slot - 1)
    }

    pub(super) fn bytes(&self) -> usize {
        self.slots.len() * size_of::<Place>()
    }
}
