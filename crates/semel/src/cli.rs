//! What can be asked: the verbs and their words.

#![allow(
    rustdoc::broken_intra_doc_links,
    reason = "these comments are the help texts, where brackets mean what can be left out"
)]

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use semel_build::sandbox::Level;
use semel_model::allocation::Scheme;
use semel_model::build::Bump;
use semel_model::duration::Span;
use semel_model::keep::Terms;
use semel_model::name::{ComponentName, ConfigKey, EnvironmentName, Tag};
use semel_model::platform::{InvalidPlatform, Platform};
use semel_model::version::{NamePattern, TagPolicy};

use crate::help;

/// Verbs that nobody types.
const INTERNAL: [&str; 2] = ["supervise", "sandbox"];

/// Build once, deploy many, prove it: immutable artefacts from commit to production
#[derive(Debug, Parser)]
#[command(name = "semel", version, max_term_width = 100)]
#[command(after_help = help::VERBS)]
pub(crate) struct Cli {
    /// What to do
    #[command(subcommand)]
    pub(crate) verb: Verb,

    /// Use the store in this directory
    #[arg(long, global = true, value_name = "DIR", conflicts_with = "server", help_heading = "Where")]
    pub(crate) store: Option<PathBuf>,

    /// The PostgreSQL database with its tables; else SEMEL_DATABASE
    #[arg(long, global = true, value_name = "URL", conflicts_with = "server", help_heading = "Where")]
    pub(crate) database: Option<String>,

    /// Use the store of this server
    #[arg(long, global = true, value_name = "URL", help_heading = "Where")]
    pub(crate) server: Option<String>,

    /// The component; else the one of the semel.toml here
    #[arg(short, long, global = true, value_name = "COMPONENT", help_heading = "Where")]
    pub(crate) component: Option<ComponentName>,

    /// Do it as if in this directory
    #[arg(short = 'C', long, global = true, value_name = "DIR", help_heading = "Where")]
    pub(crate) directory: Option<PathBuf>,

    /// Print one JSON object
    #[arg(long, global = true, help_heading = "Output")]
    pub(crate) json: bool,

    /// Print only the one essential value
    #[arg(short, long, global = true, help_heading = "Output")]
    pub(crate) quiet: bool,
}

impl Cli {
    /// The words that say where things are, as a shell takes them, each followed by a space: for commands that are proposed.
    pub(crate) fn place(&self) -> String {
        let paths = [("-C", &self.directory), ("--store", &self.store)];
        let paths =
            paths.into_iter().map(|(flag, path)| (flag, path.as_ref().map(|path| path.to_string_lossy())));
        let words = [("--database", &self.database), ("--server", &self.server)];
        let words = words.into_iter().map(|(flag, word)| (flag, word.as_deref().map(Cow::Borrowed)));
        let given = paths.chain(words).filter_map(|(flag, word)| Some(format!("{flag} {} ", quoted(&word?))));
        given.collect()
    }

    /// The words that name a store, as if they had been given with a verb that may begin one.
    pub(crate) fn at(place: &str, is_url: bool) -> Self {
        let word = if is_url { "--server" } else { "--store" };
        Self::parse_from(["semel", word, place, "version"])
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-:@%+=,".contains(&byte);
    match !word.is_empty() && word.bytes().all(is_plain) {
        true => Cow::Borrowed(word),
        false => Cow::Owned(format!("'{}'", word.replace('\'', "'\\''"))),
    }
}

/// The whole command line with every verb visible, for completions and manual pages.
pub(crate) fn whole() -> clap::Command {
    use clap::CommandFactory as _;
    let names: Vec<String> =
        Cli::command().get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
    let shown = names.iter().filter(|name| !INTERNAL.contains(&name.as_str()));
    shown.fold(Cli::command(), |all, name| all.mut_subcommand(name, |verb| verb.hide(false)))
}

/// The verbs. The ones of every day are listed by `--help`; the others are named below it.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show the whole path, from a commit to production and back, on a small real project
    Demo(DemoArgs),
    /// Write a semel.toml for the project here
    Init(InitArgs),
    /// Say what this host offers for building and storing, and what would mend what is missing
    #[command(hide = true, after_help = help::DOCTOR)]
    Doctor,
    /// Build a commit into an artefact, once
    Build(BuildArgs),
    /// Say which version a commit has or would get, and why
    #[command(after_help = help::VERSION)]
    Version(VersionArgs),
    /// Look for secrets and for what belongs to one environment
    #[command(after_help = help::LINT)]
    Lint(LintArgs),
    /// List the versions of a component
    Versions(VersionsArgs),
    /// List the channels of a component, or where one of them pointed
    Channels(ChannelsArgs),
    /// Show everything about one artefact
    Inspect(InspectArgs),
    /// List the packages of an artefact
    Sbom(SbomArgs),
    /// Show what is said about an artefact, word for word
    #[command(hide = true, after_help = help::EVIDENCE)]
    Evidence(EvidenceArgs),
    /// Hash an artefact, check its signatures, prove its name
    Verify(VersionArg),
    /// Attach a result to an artefact, signed
    Attest(AttestArgs),
    /// Ask for the right to run in an environment
    Promote(PromoteArgs),
    /// Print what may run in an environment, pinned; else exit 9
    Resolve(ResolveArgs),
    /// Make an environment run a version
    Deploy(DeployArgs),
    /// Go back to what ran before
    Rollback(RollbackArgs),
    /// Show what runs where
    Status(StatusArgs),
    /// Explain why an environment runs what it runs
    Why(EnvironmentArg),
    /// Find a commit, version or digest
    Where(WhereArgs),
    /// Show what happened in an environment
    History(HistoryArgs),
    /// Compare two artefacts, or two environments
    #[command(after_help = help::DIFF)]
    Diff(DiffArgs),
    /// Print what the application of an environment prints
    Logs(LogsArgs),
    /// Stop what an environment runs on this machine
    #[command(hide = true)]
    Stop(EnvironmentArg),
    /// Hold an environment: nothing moves until it is resumed
    #[command(hide = true)]
    Hold(HoldArgs),
    /// Lift the hold of an environment
    Resume(EnvironmentArg),
    /// Say that an artefact must not run
    #[command(hide = true)]
    Reject(RejectArgs),
    /// Lift the rejection of an artefact
    #[command(hide = true)]
    Accept(AcceptArgs),
    /// Say that a version should not be used any more
    #[command(hide = true)]
    Deprecate(DeprecateArgs),
    /// Show, compare and put in force the pipeline
    #[command(subcommand)]
    Pipeline(PipelineVerb),
    /// Set the configuration of environments
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Show which image the base is, and whether its tag means another one by now; or pin that
    #[command(hide = true, after_help = help::LOCK)]
    Lock(LockArgs),
    /// Make what something else built from a commit that commit's artefact, once
    #[command(hide = true)]
    Import(ImportArgs),
    /// Store an artefact: files, a directory, an image from a layout, an archive or a registry
    #[command(after_help = help::PUSH)]
    Push(PushArgs),
    /// Take an artefact out: its files, or the whole of it as OCI layout or archive
    #[command(after_help = help::PULL)]
    Pull(PullArgs),
    /// Restore the source that an artefact was built from
    #[command(after_help = help::SOURCE)]
    Source(SourceArgs),
    /// Give a version to a draft, or to an artefact that something else built
    #[command(hide = true)]
    Publish(PublishArgs),
    /// Give a candidate its final name: 1.4.0-rc.3 becomes 1.4.0, the same bytes
    #[command(hide = true, after_help = help::FINALISE)]
    Finalise(VersionArg),
    /// Create components and give them rules of their own
    #[command(subcommand, hide = true)]
    Component(ComponentVerb),
    /// Let a component get its versions from another store from now on
    #[command(hide = true, after_help = help::MOVE_HOME)]
    MoveHome(MoveHomeArgs),
    /// Serve the store: the API and an OCI registry
    Serve(ServeArgs),
    /// Verify the ledger and everything that it names
    #[command(subcommand)]
    Audit(AuditVerb),
    /// Let bytes go by rule; names stay for ever
    #[command(hide = true)]
    Gc(GcArgs),
    /// Hash what the store keeps again, the longest unseen first
    #[command(hide = true)]
    Scrub(ScrubArgs),
    /// Copy the store and its keys into a directory
    #[command(hide = true)]
    Backup(BackupArgs),
    /// Bring a backup back into a new store
    #[command(hide = true)]
    Restore(RestoreArgs),
    /// Restore a lost database from the store's files
    #[command(hide = true)]
    Recover,
    /// Fold the ledger into fresh tables
    #[command(hide = true)]
    Rebuild,
    /// Run the supervisor of a directory target (started by deploy)
    #[command(hide = true)]
    Supervise(SuperviseArgs),
    /// Guard or confine a command of a build (started by build)
    #[command(hide = true)]
    Sandbox(SandboxArgs),
    /// The service of the demo
    #[command(subcommand, hide = true)]
    Sample(SampleVerb),
    /// Print completions for a shell
    #[command(hide = true)]
    Completions(CompletionsArgs),
    /// Write the manual pages into a directory
    #[command(hide = true)]
    Man(ManArgs),
}

impl Verb {
    /// Whether it can be the first thing that is done with a store: it puts something in, or asks what would be.
    pub(crate) fn may_begin_a_store(&self) -> bool {
        match self {
            Self::Build(args) => args.verb.is_none(),
            Self::Version(_) | Self::Import(_) | Self::Push(_) | Self::Publish(_) | Self::Deploy(_) => true,
            Self::Component(verb) => matches!(verb, ComponentVerb::Create(_)),
            Self::Pipeline(verb) => matches!(verb, PipelineVerb::Apply),
            Self::Config(verb) => matches!(verb, ConfigVerb::Set(_)),
            _ => false,
        }
    }
}

/// `semel demo`
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Keep the project and the store in this directory (it must be empty or not there)
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
}

/// `semel init`
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Print the file instead of writing it
    #[arg(long)]
    pub(crate) print: bool,
}

/// `semel build`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, after_help = help::BUILD)]
pub(crate) struct BuildArgs {
    /// More about builds
    #[command(subcommand)]
    pub(crate) verb: Option<BuildVerb>,

    /// The commit: anything that git understands, with --check also a version [default: HEAD]
    #[arg(value_name = "REV")]
    pub(crate) revision: Option<String>,

    /// Build what was built once more, with other surroundings, and compare: exit 8 when it is not the same
    #[arg(
        long,
        value_name = "HOW",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "varied",
        conflicts_with_all = ["bump", "no_wait", "again", "retry"]
    )]
    pub(crate) check: Option<CheckWord>,

    /// The branch that it is built for, where git cannot tell
    #[arg(long, value_name = "NAME")]
    pub(crate) branch: Option<String>,

    /// The step to the next version, whatever the commits say
    #[arg(long, value_name = "STEP")]
    pub(crate) bump: Option<BumpWord>,

    /// Which part of an artefact for several platforms, or `all` [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<Parts>,

    /// Leave with exit 75 when somebody else is building the same
    #[arg(long)]
    pub(crate) no_wait: bool,

    /// Try at once what somebody else has just failed to build
    #[arg(long)]
    pub(crate) retry: bool,

    /// Build the same source once more, under a new version
    #[arg(long, requires = "reason")]
    pub(crate) again: bool,

    /// Why, for --again: recorded, and the same reason builds once
    #[arg(long, value_name = "TEXT", requires = "again")]
    pub(crate) reason: Option<String>,

    /// Take a secret of `[build] secrets` from a file that only you can read; else the variable NAME
    #[arg(long = "secret", value_name = "NAME=FILE")]
    pub(crate) secrets: Vec<SecretFile>,

    /// Build with this sandbox or not at all: bubblewrap, landlock or none [default: the strongest that works here]
    #[arg(long, value_name = "LEVEL")]
    pub(crate) sandbox: Option<Level>,

    /// Begin with empty caches, and keep none
    #[arg(long)]
    pub(crate) no_cache: bool,
}

/// `NAME=FILE`: where the value of a secret is.
#[derive(Debug, Clone)]
pub(crate) struct SecretFile {
    pub(crate) name: String,
    pub(crate) file: PathBuf,
}

impl FromStr for SecretFile {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((name, file)) if !name.is_empty() && !file.is_empty() => {
                Ok(Self { name: name.to_owned(), file: PathBuf::from(file) })
            }
            // What was given may be the secret itself, and is not repeated.
            _ => Err("expected NAME=FILE"),
        }
    }
}

/// Which parts of an artefact are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Parts {
    /// Every one.
    All,
    /// That of a platform.
    One(Platform),
}

impl FromStr for Parts {
    type Err = InvalidPlatform;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "all" { Ok(Self::All) } else { text.parse().map(Self::One) }
    }
}

/// How a build is checked.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum CheckWord {
    /// With everything made otherwise that this machine allows
    Varied,
    /// As it was built
    Quick,
}

/// The step to the next version.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum BumpWord {
    /// The last number
    Patch,
    /// The middle number
    Minor,
    /// The first number, also before 1.0.0
    Major,
}

impl From<BumpWord> for Bump {
    fn from(word: BumpWord) -> Self {
        match word {
            BumpWord::Patch => Self::Patch,
            BumpWord::Minor => Self::Minor,
            BumpWord::Major => Self::Stable,
        }
    }
}

/// `semel lint`
#[derive(Debug, Args)]
pub(crate) struct LintArgs {
    /// A file, a directory, an OCI layout, or an artefact of the store [default: this directory]
    #[arg(value_name = "PATH|[COMPONENT@]VERSION")]
    pub(crate) what: Option<String>,
}

/// `semel version`
#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// The commit: anything that git understands [default: HEAD]
    #[arg(value_name = "REV")]
    pub(crate) revision: Option<String>,

    /// The branch that it would be built for, where git cannot tell
    #[arg(long, value_name = "NAME")]
    pub(crate) branch: Option<String>,

    /// The step to the next version, whatever the commits say
    #[arg(long, value_name = "STEP")]
    pub(crate) bump: Option<BumpWord>,

    /// Say what it follows from
    #[arg(long)]
    pub(crate) explain: bool,
}

/// Below `semel build`.
#[derive(Debug, Subcommand)]
pub(crate) enum BuildVerb {
    /// Print what a build printed
    Log(BuildLogArgs),
}

/// `semel lock`
#[derive(Debug, Args)]
pub(crate) struct LockArgs {
    /// Pin what a tag means now; without an image, that of the base in semel.toml
    #[arg(long, value_name = "IMAGE:TAG")]
    #[expect(clippy::option_option, reason = "not given, given without a value, given with one")]
    pub(crate) update_base: Option<Option<String>>,
}

/// `semel import`
#[derive(Debug, Args)]
#[command(after_help = help::IMPORT)]
pub(crate) struct ImportArgs {
    /// oci:DIR, oci-archive:FILE, docker-archive:FILE, zip:FILE, qcow2:FILE or raw:FILE
    #[arg(value_name = "FORMAT:PATH")]
    pub(crate) from: String,

    /// The commit that it was built from
    #[arg(long, value_name = "SHA")]
    pub(crate) commit: String,

    /// The branch that it was built for, where git cannot tell [default of a commit that is not here: main]
    #[arg(long, value_name = "NAME")]
    pub(crate) branch: Option<String>,

    /// Give the commit another artefact than it has
    #[arg(long, requires = "reason")]
    pub(crate) again: bool,

    /// Why, for --again: recorded, and the same reason gives one artefact
    #[arg(long, value_name = "TEXT", requires = "again")]
    pub(crate) reason: Option<String>,
}

/// `semel build log`
#[derive(Debug, Args)]
pub(crate) struct BuildLogArgs {
    /// The build number, or anything that names the artefact
    #[arg(value_name = "BUILD")]
    pub(crate) build: String,

    /// What the commands printed, byte for byte, without times; it may harm a terminal
    #[arg(long)]
    pub(crate) raw: bool,

    /// Of a build that is running, wherever: show what it prints, until it ends
    #[arg(short = 'f', long, conflicts_with = "raw")]
    pub(crate) follow: bool,

    /// Of which part of a build for several platforms [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<Platform>,
}

/// `semel source`
#[derive(Debug, Args)]
pub(crate) struct SourceArgs {
    /// Which artefact: 1.4.2, a build number, sha256:…, commit:…, a channel or an environment
    #[arg(value_name = "[COMPONENT@]VERSION")]
    pub(crate) version: String,

    /// A new directory, a new file NAME.tar or NAME.tar.gz, or - for a tar stream [default: COMPONENT-VERSION]
    #[arg(short = 'o', long, value_name = "PLACE")]
    pub(crate) output: Option<String>,
}

/// `semel move-home`
#[derive(Debug, Args)]
pub(crate) struct MoveHomeArgs {
    /// The component [default: the one of the semel.toml here]
    #[arg(value_name = "COMPONENT")]
    pub(crate) name: Option<ComponentName>,

    /// The store that becomes its home: a directory, or the URL of a server
    #[arg(long, value_name = "STORE")]
    pub(crate) to: String,
}

/// `semel versions`
#[derive(Debug, Args)]
pub(crate) struct VersionsArgs {
    /// At most so many
    #[arg(short = 'n', long, default_value_t = 20, value_name = "N")]
    pub(crate) limit: u64,
}

/// `semel channels`
#[derive(Debug, Args)]
pub(crate) struct ChannelsArgs {
    /// Only this channel, with everything that it pointed to
    #[arg(value_name = "NAME")]
    pub(crate) channel: Option<Tag>,

    /// At most so many
    #[arg(short = 'n', long, default_value_t = 100, value_name = "N")]
    pub(crate) limit: u64,
}

/// One artefact.
#[derive(Debug, Args)]
pub(crate) struct VersionArg {
    /// 1.4.2, a build number, sha256:…, commit:…, a channel or an environment, also at a time: latest@{2.hours.ago}
    #[arg(value_name = "[COMPONENT@]VERSION")]
    pub(crate) version: String,
}

/// One environment.
#[derive(Debug, Args)]
pub(crate) struct EnvironmentArg {
    /// The environment
    #[arg(value_name = "ENV")]
    pub(crate) environment: EnvironmentName,
}

/// `semel attest`
#[derive(Debug, Args)]
pub(crate) struct AttestArgs {
    /// 1.4.2, a build number, sha256:…, commit:… or an environment
    #[arg(value_name = "[COMPONENT@]VERSION")]
    pub(crate) version: String,

    /// The report to read, such as a JUnit results.xml
    #[arg(value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,

    /// What kind of evidence: junit, manual, or a name of your own
    #[arg(long = "type", value_name = "TYPE", default_value = "manual")]
    pub(crate) kind: String,

    /// The result, where no report says it
    #[arg(long, value_name = "RESULT")]
    pub(crate) result: Option<ResultWord>,

    /// The environment that it was found out in
    #[arg(long = "in", value_name = "ENV")]
    pub(crate) environment: Option<EnvironmentName>,

    /// A sentence to go with it
    #[arg(short = 'm', long, value_name = "TEXT")]
    pub(crate) message: Option<String>,
}

/// What evidence can say.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum ResultWord {
    /// It is as it should be
    Pass,
    /// It is not
    Fail,
    /// Acceptable, with remarks
    Warn,
    /// Nothing can be concluded
    Inconclusive,
    /// A description without a judgement
    Info,
}

/// `semel promote`
#[derive(Debug, Args)]
pub(crate) struct PromoteArgs {
    /// 1.4.2, a build number, sha256:…, commit:… or an environment
    #[arg(value_name = "[COMPONENT@]VERSION")]
    pub(crate) version: String,

    /// Where it is to run
    #[arg(value_name = "ENV")]
    pub(crate) environment: EnvironmentName,

    /// Only say what would be decided, and record nothing
    #[arg(long)]
    pub(crate) plan: bool,

    /// The digest that the version must have
    #[arg(long, value_name = "DIGEST")]
    pub(crate) expect: Option<String>,
}

/// `semel resolve`
#[derive(Debug, Args)]
pub(crate) struct ResolveArgs {
    /// [[COMPONENT@]VERSION] ENV; without a version: the newest that was promoted
    #[arg(value_name = "WORD", num_args = 1..=2, required = true)]
    pub(crate) words: Vec<String>,
}

/// `semel deploy`
#[derive(Debug, Args)]
pub(crate) struct DeployArgs {
    /// [[COMPONENT@]VERSION] ENV; without a version: the newest that was promoted, or HEAD in the first environment
    #[arg(value_name = "WORD", num_args = 1..=2, required = true)]
    pub(crate) words: Vec<String>,

    /// The digest that the version must have
    #[arg(long, value_name = "DIGEST")]
    pub(crate) expect: Option<String>,

    /// Start it again even if nothing changed
    #[arg(long)]
    pub(crate) restart: bool,
}

/// `semel rollback`
#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    /// The environment
    #[arg(value_name = "ENV")]
    pub(crate) environment: EnvironmentName,

    /// To this version instead of the newest that succeeded before
    #[arg(long, value_name = "VERSION")]
    pub(crate) to: Option<String>,

    /// Only say what would be done
    #[arg(long)]
    pub(crate) plan: bool,
}

/// `semel status`
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Exit 1 when something is not as it should be
    #[arg(long)]
    pub(crate) exit_code: bool,
}

/// `semel where`
#[derive(Debug, Args)]
pub(crate) struct WhereArgs {
    /// A commit, a version, a build number or a digest
    #[arg(value_name = "COMMIT|VERSION|DIGEST")]
    pub(crate) word: String,
}

/// `semel history`
#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// The environment
    #[arg(value_name = "ENV")]
    pub(crate) environment: EnvironmentName,

    /// At most so many
    #[arg(short = 'n', long, default_value_t = 30, value_name = "N")]
    pub(crate) limit: u64,
}

/// `semel diff`
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The first: an environment, or 1.4.1, a build number, sha256:…, commit:…, a channel
    #[arg(value_name = "[COMPONENT@]VERSION|ENV")]
    pub(crate) first: String,

    /// The second
    #[arg(value_name = "[COMPONENT@]VERSION|ENV")]
    pub(crate) second: String,
}

/// `semel inspect`
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    pub(crate) artefact: VersionArg,

    /// Show how it was built, from its signed provenance
    #[arg(long)]
    pub(crate) provenance: bool,
}

/// `semel sbom`
#[derive(Debug, Args)]
pub(crate) struct SbomArgs {
    /// Which artefact [default: the newest version]
    #[arg(value_name = "[COMPONENT@]VERSION")]
    pub(crate) version: Option<String>,

    /// As a table, or as the signed document
    #[arg(long, value_enum, default_value_t = SbomFormat::Table, value_name = "FORMAT")]
    pub(crate) format: SbomFormat,
}

/// How packages are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SbomFormat {
    /// A line a package
    Table,
    /// CycloneDX 1.6
    Cyclonedx,
}

/// `semel evidence`
#[derive(Debug, Args)]
pub(crate) struct EvidenceArgs {
    /// Which artefact: 1.4.2, a build number, sha256:…, commit:…, a channel or an environment
    #[arg(value_name = "[COMPONENT@]VERSION")]
    pub(crate) version: String,

    /// What is said, by its type: provenance, sbom, lint, closure, junit, …; none: a list of them
    #[arg(value_name = "TYPE")]
    pub(crate) kind: Option<String>,

    /// Print the signed envelope instead of the statement
    #[arg(long, requires = "kind")]
    pub(crate) raw: bool,
}

/// `semel logs`
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// The environment
    #[arg(value_name = "ENV")]
    pub(crate) environment: EnvironmentName,

    /// The last so many lines
    #[arg(short = 'n', long, default_value_t = 100, value_name = "N")]
    pub(crate) lines: usize,

    /// Go on printing what is printed
    #[arg(short, long)]
    pub(crate) follow: bool,
}

/// `semel hold`
#[derive(Debug, Args)]
pub(crate) struct HoldArgs {
    /// The environment
    #[arg(value_name = "ENV")]
    pub(crate) environment: EnvironmentName,

    /// Why
    #[arg(short = 'm', long, value_name = "TEXT")]
    pub(crate) reason: String,
}

/// `semel reject`
#[derive(Debug, Args)]
pub(crate) struct RejectArgs {
    /// 1.4.2, a build number, sha256:…, commit:… or an environment
    #[arg(value_name = "[COMPONENT@]VERSION")]
    pub(crate) version: String,

    /// Only in this environment [default: everywhere]
    #[arg(value_name = "ENV")]
    pub(crate) environment: Option<EnvironmentName>,

    /// Why
    #[arg(short = 'm', long, value_name = "TEXT")]
    pub(crate) reason: String,

    /// It may not be fetched either
    #[arg(long)]
    pub(crate) pulls: bool,
}

/// `semel deprecate`
#[derive(Debug, Args)]
pub(crate) struct DeprecateArgs {
    /// 1.4.2, a build number, sha256:… or commit:…
    #[arg(value_name = "[COMPONENT@]VERSION")]
    pub(crate) version: String,

    /// Why, for whoever fetches it
    #[arg(short = 'm', long, value_name = "TEXT", required_unless_present = "undo")]
    pub(crate) reason: Option<String>,

    /// It may be used again
    #[arg(long, conflicts_with = "reason")]
    pub(crate) undo: bool,
}

/// Below `semel component`.
#[derive(Debug, Subcommand)]
pub(crate) enum ComponentVerb {
    /// Create a component before its first version, with rules of its own
    Create(ComponentCreateArgs),
    /// Give a component other rules; names that were given stay what they are
    Set(ComponentSetArgs),
    /// List the components of the store
    List,
    /// Show one component and its rules
    Show(ComponentNameArg),
}

/// `semel component create`
#[derive(Debug, Args)]
pub(crate) struct ComponentCreateArgs {
    /// Its name
    #[arg(value_name = "NAME")]
    pub(crate) name: ComponentName,

    /// What a tag is, for ever: release (1.4.2 is a version, latest a channel), strict (all are versions), mirror (all are channels)
    #[arg(long, default_value = "release", value_name = "POLICY")]
    pub(crate) policy: TagPolicy,

    /// Also versions: names such as build-# (# for digits, * for anything); may be given again
    #[arg(long = "version-pattern", value_name = "PATTERN")]
    pub(crate) patterns: Vec<NamePattern>,

    /// How long bytes are kept [default: promoted=for ever,trunk=90d,branch=14d]
    #[arg(long, value_name = "RULE=TERM,…")]
    pub(crate) keep: Option<Terms>,

    /// How versions look: continuous (1.4.2), candidate (1.4.2-rc.1), number (482) [default: as the first build proposes]
    #[arg(long, value_name = "SCHEME")]
    pub(crate) scheme: Option<Scheme>,
}

/// `semel component set`
#[derive(Debug, Args)]
pub(crate) struct ComponentSetArgs {
    /// Its name
    #[arg(value_name = "NAME")]
    pub(crate) name: ComponentName,

    /// Also versions from now on, instead of what was set before; may be given again
    #[arg(long = "version-pattern", value_name = "PATTERN")]
    pub(crate) patterns: Vec<NamePattern>,

    /// No other names are versions from now on
    #[arg(long = "no-version-pattern", conflicts_with = "patterns")]
    pub(crate) no_patterns: bool,

    /// How long bytes are kept; what is not named stays: branch=7d
    #[arg(long, value_name = "RULE=TERM,…")]
    pub(crate) keep: Option<Terms>,

    /// How versions look from now on: continuous (1.4.2), candidate (1.4.2-rc.1), number (482)
    #[arg(long, value_name = "SCHEME")]
    pub(crate) scheme: Option<Scheme>,
}

/// One component.
#[derive(Debug, Args)]
pub(crate) struct ComponentNameArg {
    /// Its name
    #[arg(value_name = "NAME")]
    pub(crate) name: ComponentName,
}

/// `semel accept`
#[derive(Debug, Args)]
pub(crate) struct AcceptArgs {
    /// 1.4.2, a build number, sha256:…, commit:… or an environment
    #[arg(value_name = "[COMPONENT@]VERSION")]
    pub(crate) version: String,

    /// Only in this environment [default: wherever it was rejected]
    #[arg(value_name = "ENV")]
    pub(crate) environment: Option<EnvironmentName>,
}

/// Below `semel pipeline`.
#[derive(Debug, Subcommand)]
pub(crate) enum PipelineVerb {
    /// Put the pipeline that semel.toml proposes in force
    Apply,
    /// Show the pipeline in force
    Show,
    /// Compare what semel.toml proposes with what is in force; exit 1 if they differ
    Diff,
}

/// Below `semel config`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigVerb {
    /// Keep a value for an environment, read from standard input
    Set(ConfigKeyArgs),
    /// Forget a value that was set
    Unset(ConfigKeyArgs),
    /// Show the keys of an environment and where their values come from
    Show(EnvironmentArg),
}

/// A key of an environment.
#[derive(Debug, Args)]
pub(crate) struct ConfigKeyArgs {
    /// The environment
    #[arg(value_name = "ENV")]
    pub(crate) environment: EnvironmentName,

    /// The key
    #[arg(value_name = "KEY")]
    pub(crate) key: ConfigKey,
}

/// `semel push`
#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// Files, a directory, oci:DIR[:NAME], oci-archive:FILE, docker-archive:FILE, or an image in a registry
    #[arg(value_name = "FROM", required = true, num_args = 1..)]
    pub(crate) from: Vec<String>,

    /// The version or channel that it gets
    #[arg(value_name = "[COMPONENT@]TAG", required = true)]
    pub(crate) to: String,

    /// What files are [default: what their names and first bytes say]
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: Option<FileKind>,

    /// The artifactType of files [default: that of their kind]
    #[arg(long = "type", value_name = "MEDIA_TYPE")]
    pub(crate) artifact_type: Option<String>,

    /// The commit that it was built from
    #[arg(long, value_name = "SHA", conflicts_with = "draft")]
    pub(crate) commit: Option<String>,

    /// Only hold the version's name, until semel publish gives it
    #[arg(long)]
    pub(crate) draft: bool,

    /// For how long the name is held [default: 24h]
    #[arg(long = "for", value_name = "TERM", requires = "draft")]
    pub(crate) term: Option<Span>,

    /// Leave out what is attached to it: statements, reports, its source
    #[arg(long)]
    pub(crate) alone: bool,
}

/// `semel pull`
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// 1.4.2, a build number, sha256:…, commit:…, a channel or an environment, also at a time: latest@{2.hours.ago}
    #[arg(value_name = "[COMPONENT@]VERSION")]
    pub(crate) version: String,

    /// A directory or a file, oci:DIR[:NAME], or oci-archive:FILE
    #[arg(value_name = "TO")]
    pub(crate) to: String,

    /// Replace what is there and is something else
    #[arg(long)]
    pub(crate) force: bool,

    /// Leave out what is attached to it: statements, reports, its source
    #[arg(long)]
    pub(crate) alone: bool,
}

/// What files become when they are pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FileKind {
    /// Files as they are
    File,
    /// A serverless package, byte for byte
    Zip,
    /// A disk image, qcow2 or raw
    Vm,
    /// A Helm chart
    Chart,
    /// A file tree
    Archive,
}

/// `semel publish`
#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    /// A draft, [COMPONENT@]VERSION; or the artefact where it is: oci:DIR[:NAME], or an image in a registry
    #[arg(value_name = "DRAFT|REF")]
    pub(crate) reference: String,

    /// The version that it gets, where it is no draft [default: the tag of REF]
    #[arg(long = "as", value_name = "VERSION")]
    pub(crate) version: Option<Tag>,

    /// The commit that it was built from
    #[arg(long, value_name = "SHA")]
    pub(crate) commit: Option<String>,

    /// Leave out what is attached to it: statements, reports, its source
    #[arg(long)]
    pub(crate) alone: bool,
}

/// `semel serve`
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Where to listen; loopback only until sign-in exists
    #[arg(long, default_value = "127.0.0.1:7070", value_name = "ADDRESS:PORT")]
    pub(crate) listen: std::net::SocketAddr,
    /// How many uploads a client (an address: on loopback, all programs here) may have open
    #[arg(long, default_value_t = 256, value_name = "N")]
    pub(crate) uploads_per_client: usize,
    /// How long an upload may lie idle before it is removed
    #[arg(long, default_value = "24h", value_name = "DURATION")]
    pub(crate) upload_ttl: Span,
    /// How many MiB of the disk stay free, never more than 5 % of it; an upload beyond is answered 507
    #[arg(long, default_value_t = 1024, value_name = "MIB")]
    pub(crate) reserve_mib: u32,
}

/// Below `semel audit`.
#[derive(Debug, Subcommand)]
pub(crate) enum AuditVerb {
    /// Recompute the ledger, compare everything with it, hash every blob
    Verify,
}

/// `semel gc`
#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// Do it; without this it is only said what would be done
    #[arg(long)]
    pub(crate) yes: bool,

    /// Only say what would be done
    #[arg(long, conflicts_with = "yes")]
    pub(crate) dry_run: bool,

    /// Leave alone what somebody relied on for so long [default: 24h]
    #[arg(long, value_name = "TERM")]
    pub(crate) grace: Option<Span>,

    /// How long what nobody needs lies in the trash before it is gone [default: 7d]
    #[arg(long, value_name = "TERM")]
    pub(crate) trash: Option<Span>,
}

/// `semel scrub`
#[derive(Debug, Args)]
pub(crate) struct ScrubArgs {
    /// So many bytes are enough for this time
    #[arg(long, value_name = "N")]
    pub(crate) max_bytes: Option<u64>,
}

/// `semel backup`
#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// The directory; what it holds already is not copied again
    #[arg(value_name = "DIR")]
    pub(crate) to: PathBuf,
}

/// `semel restore`
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The backup
    #[arg(value_name = "DIR")]
    pub(crate) from: PathBuf,
}

/// `semel supervise`
#[derive(Debug, Args)]
pub(crate) struct SuperviseArgs {
    /// The directory of the binding
    #[arg(long, value_name = "DIR")]
    pub(crate) root: PathBuf,
}

/// `semel sandbox`
#[derive(Debug, Args)]
pub(crate) struct SandboxArgs {
    /// What to do with the command
    #[arg(value_name = "JSON")]
    pub(crate) order: String,
    /// The command
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// Below `semel sample`.
#[derive(Debug, Subcommand)]
pub(crate) enum SampleVerb {
    /// Answer HTTP on $PORT with a greeting; behaves as the file behaviour.toml beside the program says
    Serve,
    /// Write the sample project's files into a directory
    Write(SampleWriteArgs),
    /// Copy this program to a file, as the sample project's service
    Install(SampleWriteArgs),
    /// Test the service of the commit that lies here and write a JUnit report
    Test(SampleWriteArgs),
}

/// A path.
#[derive(Debug, Args)]
pub(crate) struct SampleWriteArgs {
    /// Where
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
}

/// `semel completions`
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

/// `semel man`
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The directory
    #[arg(value_name = "DIR")]
    pub(crate) to: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::{Cli, INTERNAL, whole};
    use crate::help;

    #[test]
    fn the_command_line_makes_sense() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_is_listed_or_named_below_the_list_and_internal_ones_are_shown_nowhere() {
        let words: Vec<&str> = help::VERBS.split(|c: char| !c.is_alphanumeric() && c != '-').collect();
        for verb in Cli::command().get_subcommands() {
            let (name, is_internal) = (verb.get_name(), INTERNAL.contains(&verb.get_name()));
            let is_named = !verb.is_hide_set() || words.contains(&name);
            assert_eq!(is_named, !is_internal, "{name}");
        }
        let shown: Vec<String> = whole()
            .get_subcommands()
            .filter(|verb| !verb.is_hide_set())
            .map(|verb| verb.get_name().to_owned())
            .collect();
        assert!(shown.iter().any(|name| name == "move-home"), "{shown:?}");
        assert!(INTERNAL.iter().all(|name| !shown.contains(&(*name).to_owned())), "{shown:?}");
    }
}
