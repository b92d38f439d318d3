//! The stores of larder, and the machinery they share.

pub mod chat;
