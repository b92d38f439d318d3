//! Chat memory: sessions of messages, and the windows of them that go to a model.
//!
//! Start at [`window`], which decides what a window holds; [`tokens`] counts.
//!
//! Always true: nothing in here reads the whole history to answer for its newest part.

pub mod tokens;
pub mod window;
