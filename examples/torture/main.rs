//! Kills, and proof that nothing acknowledged was lost: a load that logs what it was told, and a check of the log.
//!
//! ```sh
//! cargo build --example torture
//! timeout -s KILL 3 target/debug/examples/torture run --dir /tmp/t --seed 7 --callers 64 --seconds 60 > /tmp/t.log
//! target/debug/examples/torture verify --dir /tmp/t --log /tmp/t.log
//! ```
//!
//! Start at [`harness::USAGE`]. `tests/it/crash.rs` runs the same modules with many kills; a later store joins by a `Plan`.
//!
//! Always true: what an id does depends on seed and id alone; its `TRY` is out before it is sent, and its `ACK` or `ERR` after
//! the answer.

mod harness;

use std::process::ExitCode;

fn main() -> ExitCode {
    harness::command(std::env::args().skip(1)).into()
}
