//! Why nothing was built: of every step, with whose fault it is and what to do about it.

use std::io;
use std::path::PathBuf;

use crate::base::BaseError;
use crate::boot::BootError;
use crate::cache::CacheError;
use crate::checkout::CheckoutError;
use crate::closure::smoke::SmokeError;
use crate::closure::{self, ClosureError};
use crate::collect::CollectError;
use crate::finished::FinishedError;
use crate::lint::{self, CommittedError, LintError};
use crate::package::PackageError;
use crate::recipe::RunError;
use crate::sbom::SbomError;
use crate::source::SourceError;

/// Whose fault it is that nothing was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The caller's: the commit, the project file or the request must change.
    Caller,
    /// What was asked for does not exist.
    NotFound,
    /// The project's own command failed.
    Command,
    /// The caller stopped it.
    Stopped,
    /// The artefact's: it lacks something that it needs, or carries what it must not.
    Artefact,
    /// The machine's or ours.
    Fault,
}

/// Why nothing was built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// No source.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// No tree.
    #[error(transparent)]
    Checkout(#[from] CheckoutError),
    /// No cache.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A command did not get to its end.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The files are not what the definition says.
    #[error(transparent)]
    Collect(#[from] CollectError),
    /// No base.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// No artefact.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// The linter could not look.
    #[error(transparent)]
    Lint(#[from] LintError),
    /// The linter found what must not be there.
    #[error("the artefact carries what it must not: {} found", .0.errors().count())]
    Forbidden(Box<lint::Report>),
    /// The artefact could not be looked at.
    #[error(transparent)]
    Closure(#[from] ClosureError),
    /// The artefact lacks something that it needs.
    #[error("the artefact is not complete: {}", .0.summary())]
    Incomplete(Box<closure::Report>),
    /// A smoke command did not get to its end.
    #[error(transparent)]
    Smoke(#[from] SmokeError),
    /// What the project's own builder wrote is no artefact.
    #[error(transparent)]
    Finished(#[from] FinishedError),
    /// The artefact's packages could not be listed.
    #[error(transparent)]
    Sbom(#[from] SbomError),
    /// A virtual machine did not start.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The work directory could not be used.
    #[error("cannot use the work directory {}", .dir.display())]
    Work {
        /// The directory.
        dir: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl BuildError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Source(error) => error.hint(),
            Self::Checkout(error) => error.hint(),
            Self::Run(error) => error.hint(),
            Self::Collect(error) => error.hint(),
            Self::Cache(CacheError::InSource { path } | CacheError::BehindLink { path }) => {
                Some(format!("leave `{path}` out of [build] cache, or out of the commit"))
            }
            Self::Cache(CacheError::Io { .. }) => Some("semel build --no-cache".to_owned()),
            Self::Forbidden(report) => report.hint(),
            Self::Base(error) => error.hint(),
            Self::Finished(error) => error.hint(),
            Self::Package(error) => error.hint(),
            Self::Lint(_)
            | Self::Closure(_)
            | Self::Incomplete(_)
            | Self::Smoke(_)
            | Self::Sbom(_)
            | Self::Boot(_)
            | Self::Work { .. } => None,
        }
    }

    /// Of what a failed command printed, the first and the last lines.
    pub fn excerpt(&self) -> &[String] {
        match self {
            Self::Run(error) => error.excerpt(),
            Self::Smoke(error) => error.excerpt(),
            Self::Boot(error) => error.excerpt(),
            _ => &[],
        }
    }

    /// Everything that is wrong with the artefact, and for each what to do about it.
    pub fn problems(&self) -> Vec<(String, &str)> {
        match self {
            Self::Incomplete(report) => {
                report.errors().map(|finding| (finding.to_string(), finding.fix.as_str())).collect()
            }
            Self::Forbidden(report) => {
                report.errors().map(|finding| (finding.to_string(), finding.fix.as_str())).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Whose fault it is; the exit code follows from it.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Source(SourceError::UnknownRevision { .. }) => Blame::NotFound,
            Self::Run(RunError::Stopped { .. })
            | Self::Smoke(SmokeError::Stopped)
            | Self::Boot(BootError::Stopped) => Blame::Stopped,
            Self::Smoke(SmokeError::Failed { .. }) | Self::Boot(BootError::Failed { .. }) => Blame::Command,
            Self::Package(
                PackageError::Unfit { .. } | PackageError::Disk { .. } | PackageError::Growth { .. },
            ) => Blame::Caller,
            Self::Lint(LintError::Waiver(_) | LintError::Committed(CommittedError::Values { .. })) => {
                Blame::Caller
            }
            Self::Run(RunError::Failed { .. } | RunError::TimedOut { .. }) => Blame::Command,
            Self::Source(SourceError::Git(_))
            | Self::Checkout(
                CheckoutError::Write { .. } | CheckoutError::Attributes { .. } | CheckoutError::Git(_),
            )
            | Self::Cache(CacheError::Io { .. })
            | Self::Run(RunError::Start { .. } | RunError::Log { .. })
            | Self::Collect(CollectError::Read { .. })
            | Self::Package(_)
            | Self::Lint(_)
            | Self::Closure(_)
            | Self::Sbom(_)
            | Self::Smoke(SmokeError::LayOut { .. } | SmokeError::Start { .. } | SmokeError::Log { .. })
            | Self::Boot(BootError::Start { .. })
            | Self::Work { .. } => Blame::Fault,
            Self::Incomplete(_) | Self::Forbidden(_) => Blame::Artefact,
            Self::Finished(error) if !error.is_callers() => Blame::Fault,
            Self::Base(error) if !error.is_callers() => Blame::Fault,
            Self::Source(_)
            | Self::Checkout(_)
            | Self::Cache(_)
            | Self::Run(_)
            | Self::Collect(_)
            | Self::Base(_)
            | Self::Finished(_) => Blame::Caller,
        }
    }
}
