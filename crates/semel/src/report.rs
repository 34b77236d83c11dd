//! How a command ends: exit codes, and what is said about a failure.

use std::process::ExitCode;

use semel_oci::client::ClientError;
use semel_oci::copy;
use semel_server::api::ErrorClass;
use semel_server::client::CallError;
use serde_json::json;

use crate::output::Output;

/// The exit codes, which are a promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done, or nothing to do.
    Done,
    /// A difference was found.
    Difference,
    /// Usage, or a precondition of the caller's.
    Usage,
    /// Something broke.
    Fault,
    /// Not there.
    NotFound,
    /// A name would get another meaning.
    Conflict,
    /// Not allowed to you, or not here.
    NotAllowed,
    /// Bytes or signatures do not verify.
    Verification,
    /// A rebuild came to something else.
    NotDeterministic,
    /// Refused by a rule, recorded, with reasons.
    Refused,
    /// The user's own command failed.
    Command,
    /// Try again.
    TryAgain,
    /// Broken off by the user.
    Interrupted,
}

impl Exit {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Difference => 1,
            Self::Usage => 2,
            Self::Fault => 3,
            Self::NotFound => 4,
            Self::Conflict => 5,
            Self::NotAllowed => 6,
            Self::Verification => 7,
            Self::NotDeterministic => 8,
            Self::Refused => 9,
            Self::Command => 10,
            Self::TryAgain => 75,
            Self::Interrupted => 130,
        }
    }

    fn of(class: ErrorClass) -> Self {
        match class {
            ErrorClass::Precondition | ErrorClass::Invalid => Self::Usage,
            ErrorClass::NotFound => Self::NotFound,
            ErrorClass::Conflict => Self::Conflict,
            ErrorClass::NotAllowed => Self::NotAllowed,
            ErrorClass::Verification => Self::Verification,
            ErrorClass::TryAgain => Self::TryAgain,
            ErrorClass::Fault => Self::Fault,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    /// How the program ends.
    pub(crate) exit: Exit,
    /// What happened, in one line.
    pub(crate) message: String,
    /// Why, cause by cause or reason by reason.
    pub(crate) because: Vec<String>,
    /// What to do about it: commands.
    pub(crate) hints: Vec<String>,
    /// The answer behind it, for `--json`.
    pub(crate) answer: Option<serde_json::Value>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), because: Vec::new(), hints: Vec::new(), answer: None }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub(crate) fn fault(message: impl Into<String>) -> Self {
        Self::new(Exit::Fault, message)
    }

    /// Something went wrong: the error's own words, then its causes.
    pub(crate) fn from_error(exit: Exit, error: &dyn std::error::Error) -> Self {
        let causes = std::iter::successors(error.source(), |cause| cause.source());
        let mut because: Vec<String> = causes.map(ToString::to_string).collect();
        because.dedup();
        let message = error.to_string();
        because.retain(|cause| *cause != message);
        Self { because, ..Self::new(exit, message) }
    }

    /// Bytes did not come or go. A registry that is away may be back later, and one that says no is obeyed; whatever else it
    /// is, there are no such bytes as were asked for.
    pub(crate) fn not_copied(error: &(dyn std::error::Error + 'static)) -> Self {
        let exit = match copy::registry_error(error) {
            Some(registry) if registry.is_passing() => Exit::TryAgain,
            Some(ClientError::SignIn { .. }) => Exit::NotAllowed,
            Some(ClientError::Refused { status, .. }) => match status.as_u16() {
                401 | 403 => Exit::NotAllowed,
                404 => Exit::Verification,
                _ => Exit::Fault,
            },
            _ => Exit::Verification,
        };
        Self::from_error(exit, error)
    }

    pub(crate) fn because(mut self, reasons: impl IntoIterator<Item = String>) -> Self {
        self.because.extend(reasons);
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    pub(crate) fn hints(mut self, hints: impl IntoIterator<Item = String>) -> Self {
        self.hints.extend(hints);
        self
    }

    pub(crate) fn answer(mut self, answer: &impl serde::Serialize) -> Self {
        self.answer = serde_json::to_value(answer).ok();
        self
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let mut failure = Self::from_error(Exit::of(error.class()), &error);
        if let CallError::Answered(answer) = &error {
            failure.because.clone_from(&answer.causes);
        }
        failure.hints.extend(error.hint().map(str::to_owned));
        failure
    }
}

/// Says what is wrong with the words of the command line.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    // Help and version are no errors; printing them can fail only when nobody reads.
    drop(error.print());
    if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() }
}

/// Says that data is missing on standard output, where nothing more can be said.
pub(crate) fn loss(output: &Output, error: &std::io::Error) -> ExitCode {
    output.problem("error", &format!("cannot write to standard output: {error}"));
    Exit::Fault.into()
}

/// Says why a command did not do what was asked.
pub(crate) fn failure(output: &Output, failure: &Failure) -> ExitCode {
    if output.is_json() {
        let hints: Vec<String> = failure.hints.iter().map(|hint| output.proposed(hint)).collect();
        let mut object = json!({
            "error": {"exit": failure.exit.code(), "message": failure.message, "because": failure.because, "hints": hints},
        });
        if let Some(answer) = &failure.answer {
            object["answer"] = answer.clone();
        }
        output.json(&object);
        return failure.exit.into();
    }
    let word = if failure.exit == Exit::Refused { "refused" } else { "error" };
    output.problem(word, &failure.message);
    for reason in &failure.because {
        output.note("because", reason);
    }
    for hint in &failure.hints {
        output.note("hint", hint);
    }
    failure.exit.into()
}
