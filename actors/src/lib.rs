//! The stores of larder, and the machinery they share.
