//! Chat memory: sessions of messages, and the windows of them that go to a model.
//!
//! Start at the list of messages in `store`; the handlers are in `append`, `edit`, `trim`, `history`, `list` and `sessions`,
//! the rows in `row`, `place` and `body`. [`window`] decides what a window holds; [`tokens`] counts.
//!
//! Always true: nothing in here reads the whole history to answer for its newest part; a content is verified against
//! its checksum before it is answered; counting never runs on the store's own thread.

mod append;
mod body;
mod check;
mod counter;
mod edit;
mod fork;
mod history;
mod links;
mod list;
mod place;
mod row;
mod sessions;
mod store;
pub mod tokens;
mod trim;
pub mod window;

pub use counter::Counter;
pub use store::{Chat, ChatSettings};
