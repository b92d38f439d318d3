//! Progress of long work: a bar on a terminal's standard error, and nothing anywhere else.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::Output;

/// Often enough to look alive.
const TICK: Duration = Duration::from_millis(120);

/// Returns a spinner with what is being done.
pub(crate) fn spinner(output: &Output, doing: &str) -> ProgressBar {
    let spinner = ProgressBar::with_draw_target(None, target(output)).with_message(doing.to_owned());
    if !spinner.is_hidden() {
        spinner.enable_steady_tick(TICK);
    }
    spinner
}

/// Returns a spinner that counts rows.
pub(crate) fn counter(output: &Output, what: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {human_pos} {msg}, {per_sec}");
    let counter = spinner(output, what);
    match style {
        Ok(style) => counter.with_style(style),
        Err(_) => counter,
    }
}

/// Returns a bar for so many items, the newest of them named behind it.
pub(crate) fn bar(output: &Output, items: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {human_pos}/{human_len} {eta} {msg}");
    let bar = ProgressBar::with_draw_target(Some(items), target(output));
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// indicatif draws nothing where standard error is no terminal.
fn target(output: &Output) -> ProgressDrawTarget {
    if output.is_json() || output.is_quiet() { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() }
}
