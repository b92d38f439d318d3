//! The tool as its users have it: the binary run in folders of its own, by what it prints and its exit code.
//!
//! Start at [`support::Tool`].
//!
//! Always true: no test depends on the environment that it runs in; a folder that another process has open is this test's own.

// `cfg(test)` holds here in any case; saying it lets clippy's allow-…-in-tests reach helper functions too.
#[cfg(test)]
mod damage;
#[cfg(test)]
mod folder;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod ingest;
#[cfg(test)]
mod interrupted;
#[cfg(test)]
mod json;
#[cfg(test)]
mod kv;
#[cfg(test)]
mod snapshot;
#[cfg(test)]
mod stores;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod support;
#[cfg(test)]
mod usage;
