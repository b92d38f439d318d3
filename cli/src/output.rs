//! All that is printed: answers to standard output, errors and notes to standard error, each for people or as JSON.
//!
//! Start at [`Output`].
//!
//! Always true: colours appear on a terminal alone, and never with `NO_COLOR`; what others stored is escaped on its way to a
//! terminal, and always where it stands in a line of several fields.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::failure::{Failure, Told};
use crate::json;
use crate::text;

pub(crate) const BOLD: Style = Style::new().bold();
pub(crate) const DIM: Style = Style::new().dimmed();
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();

/// Where a command prints, and how.
pub(crate) struct Output {
    out: Box<dyn Write>,
    errors: Box<dyn Write>,
    is_json: bool,
    is_quiet: bool,
    /// Whether standard output is a terminal.
    is_terminal: bool,
    has_colours: bool,
    errors_have_colours: bool,
}

impl Output {
    pub(crate) fn to_standard_streams(is_json: bool, is_quiet: bool) -> Self {
        let (out, errors) = (io::stdout(), io::stderr());
        let (is_terminal, errors_are_on_a_terminal) = (out.is_terminal(), errors.is_terminal());
        let is_plain = is_set("NO_COLOR") || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            out: Box::new(BufWriter::new(out)),
            errors: Box::new(errors),
            is_json,
            is_quiet,
            is_terminal,
            has_colours: is_terminal && !is_plain,
            errors_have_colours: errors_are_on_a_terminal && !is_plain,
        }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.is_json
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.is_quiet
    }

    /// Returns whether a person looks at standard output.
    pub(crate) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Prints an answer: as JSON where that is asked for, else as `people` prints it.
    pub(crate) fn answer<T: Serialize>(
        &mut self,
        answer: &T,
        people: impl FnOnce(&mut Self, &T) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        if self.is_json { self.json(answer) } else { people(self, answer) }
    }

    /// Prints one JSON document on a line of its own.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let line = json::line(value)?;
        Ok(writeln!(self.out, "{line}")?)
    }

    /// Prints a line, whose fields are escaped already.
    pub(crate) fn line(&mut self, line: impl AsRef<str>) -> Result<(), Failure> {
        Ok(writeln!(self.out, "{}", line.as_ref())?)
    }

    /// Prints a stored text as it is, but for a terminal, which gets it with its control characters escaped.
    pub(crate) fn stored_text(&mut self, stored: &str) -> Result<(), Failure> {
        let is_terminal = self.is_terminal;
        let shown = if is_terminal { text::block(stored) } else { stored.into() };
        self.line(shown)
    }

    /// Prints bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        Ok(self.out.write_all(bytes)?)
    }

    /// Returns a text in a style, where there are colours.
    pub(crate) fn styled(&self, style: Style, text: &str) -> String {
        styled(self.has_colours, style, text)
    }

    /// Tells the person who waits something that is not the answer; not to those who read JSON.
    pub(crate) fn note(&mut self, note: impl AsRef<str>) {
        if !self.is_json && !self.is_quiet {
            let note = styled(self.errors_have_colours, DIM, note.as_ref());
            // Whoever does not read notes misses nothing.
            let _ = self.out.flush();
            let _ = writeln!(self.errors, "{note}");
        }
    }

    /// Says that a list goes on, and how to get there.
    pub(crate) fn note_more(&mut self, after: &str) {
        if self.is_json {
            let _ = self.out.flush();
            if let Ok(line) = json::line(&serde_json::json!({ "more": { "after": after } })) {
                let _ = writeln!(self.errors, "{line}");
            }
        } else {
            self.note(format!(
                "there are more: --limit takes a higher number, and --after {} goes on",
                text::word(after)
            ));
        }
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Says why the command failed, and returns its exit code.
    pub(crate) fn report(&mut self, failure: &Failure) -> ExitCode {
        if let Failure::Told(told) = failure {
            // What was printed before comes first.
            let _ = self.out.flush();
            let _ = self.tell(told);
        }
        failure.code()
    }

    fn tell(&mut self, told: &Told) -> io::Result<()> {
        if self.is_json {
            let line = json::line(&serde_json::json!({ "error": told })).unwrap_or_default();
            return writeln!(self.errors, "{line}");
        }
        let label = styled(self.errors_have_colours, BAD, "error:");
        let hint = told.hint.as_deref().map(|hint| format!("; {hint}")).unwrap_or_default();
        writeln!(self.errors, "{label} {}{hint}", text::line(&told.message))
    }
}

fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| !value.is_empty())
}

fn styled(has_colours: bool, style: Style, text: &str) -> String {
    if has_colours { format!("{style}{text}{style:#}") } else { text.to_owned() }
}
