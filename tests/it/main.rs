//! What larder promises, tested through its public API: one binary, a module for each store and each promise.
//!
//! Start at the module with the store's word; `layers` keeps the architecture itself.
//!
//! Always true: no test sleeps to wait, and each check that hunts for faults is shown to catch one.

// `cfg(test)` holds here in any case; saying it lets clippy's allow-…-in-tests reach helper functions too.
#[cfg(test)]
mod backup;
#[cfg(test)]
mod chat;
#[cfg(test)]
mod context;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod documents;
#[cfg(test)]
mod embed_cache;
#[cfg(test)]
mod folder;
#[cfg(test)]
mod graph;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod kv;
#[cfg(test)]
mod layers;
#[cfg(test)]
mod leases;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod linearizability;
#[cfg(test)]
mod model;
#[cfg(test)]
mod overload;
#[cfg(test)]
mod processes;
#[cfg(test)]
mod quarantine;
#[cfg(test)]
mod readers;
#[cfg(test)]
mod supervision;
#[cfg(test)]
mod support;
// The example's load and proof, run here under kills.
#[cfg(test)]
#[path = "../../examples/torture/harness/mod.rs"]
mod torture;
#[cfg(test)]
mod vectors;
