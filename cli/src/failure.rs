//! What can go wrong, said in one sentence with the way out, and the exit code that says it to scripts.
//!
//! Always true: an error of larder's says whether its change was written, where that is not plain.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use larder::{Class, ErrorKind, OpenError, Written};
use serde::Serialize;

/// The exit codes, as `larder --help` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    Failed = 1,
    Usage = 2,
    NotFound = 3,
    Busy = 4,
    Damaged = 5,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// Why a command ends without having done what it should.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something to tell.
    Told(Box<Told>),
    /// Everything was said already, as a report; only the code is left.
    Reported(Code),
    /// Nobody reads what is printed any more, which is nobody's fault.
    ReaderWentAway,
}

/// What is told of a failure; its JSON form is this, as `error`.
#[derive(Debug, Serialize)]
pub(crate) struct Told {
    /// The exit code.
    pub(crate) code: u8,
    /// What kind of error it is, in larder's words: `not_found`, `invalid_input`, `corrupt` and so on.
    pub(crate) class: Class,
    /// What failed, and why.
    pub(crate) message: String,
    /// The way out.
    pub(crate) hint: Option<String>,
    /// Whether the change is in the store.
    pub(crate) written: Written,
}

impl Failure {
    fn told(code: Code, class: Class, message: impl Into<String>) -> Self {
        let (message, hint, written) = (message.into(), None, Written::NotApplied);
        Self::Told(Box::new(Told { code: code as u8, class, message, hint, written }))
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::told(Code::Usage, Class::InvalidInput, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::told(Code::NotFound, Class::NotFound, message)
    }

    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self::told(Code::Failed, Class::Refused, message)
    }

    /// Returns the failure of an operation on a file or folder of the user's.
    pub(crate) fn file(path: &Path, doing: &str, error: &io::Error) -> Self {
        let code = if error.kind() == io::ErrorKind::NotFound { Code::NotFound } else { Code::Failed };
        let class = if code == Code::NotFound { Class::NotFound } else { Class::Io };
        Self::told(code, class, format!("{doing} {}: {error}", path.display()))
    }

    /// Returns the failure with the way out.
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        if let Self::Told(told) = &mut self {
            told.hint = Some(hint.into());
        }
        self
    }

    pub(crate) fn code(&self) -> ExitCode {
        match self {
            Self::Told(told) => ExitCode::from(told.code),
            Self::Reported(code) => (*code).into(),
            Self::ReaderWentAway => ExitCode::SUCCESS,
        }
    }
}

/// Failures of printing; those of files go through [`Failure::file`].
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::ReaderWentAway;
        }
        Self::told(Code::Failed, Class::Io, format!("printing: {error}"))
    }
}

impl From<ErrorKind> for Failure {
    fn from(error: ErrorKind) -> Self {
        larder::Error::from(error).into()
    }
}

impl From<larder::Error> for Failure {
    fn from(error: larder::Error) -> Self {
        let (code, hint) = meaning(error.class());
        let hint = match error.written() {
            Written::Unknown => Some("it may have been written or not: look before you repeat it"),
            Written::Applied => Some("the change is written all the same"),
            Written::NotApplied => hint,
        };
        let (class, message, hint) = (error.class(), with_causes(&error), hint.map(str::to_owned));
        Self::Told(Box::new(Told { code: code as u8, class, message, hint, written: error.written() }))
    }
}

/// Returns the exit code of a class, and the way out where there is one for all of it.
fn meaning(class: Class) -> (Code, Option<&'static str>) {
    match class {
        Class::InvalidInput => (Code::Usage, None),
        Class::NotFound => (Code::NotFound, None),
        Class::Overloaded | Class::Restarting | Class::Deadline => (Code::Busy, Some("try again in a moment")),
        Class::Corrupt => {
            (Code::Damaged, Some("see what is damaged with `larder check`; `larder restore --help` has the way back"))
        }
        Class::DiskFull => (Code::Failed, Some("make room on the disk; deletes still work")),
        _ => (Code::Failed, None),
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let message = with_causes(&error);
        match error {
            OpenError::Held { .. } => Self::told(Code::Busy, Class::Refused, message)
                .with_hint("end that program, or let it open the folder as shared"),
            OpenError::Settings(_) => Self::told(Code::Usage, Class::InvalidInput, message),
            _ => Self::told(Code::Failed, Class::Refused, message),
        }
    }
}

/// Returns an error with what caused it: larder's errors say what failed, their sources why.
fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let cause_text = error.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        cause = error.source();
    }
    text
}
