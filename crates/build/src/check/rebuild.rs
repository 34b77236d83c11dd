//! Rebuild: the same commit once more, with other surroundings on purpose.
//!
//! What the machine allows is found out first ([`Machine::look`]); what follows from that is a plan, which names also what
//! is not varied. The project's own `[build] env` stays above every variation: what a project fixes is fixed. The umask is
//! always Semel's, and a rebuild begins with an empty home and without caches.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use jiff::SignedDuration;

use crate::pipeline::{self, BuildError, BuildRequest, Progress, Remade};
use crate::recipe::Varied;
use crate::sandbox::{HostEnvironment, Inside, Level, Room};
use crate::source::Source;

/// What a rebuild can make otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Variation {
    /// Where the tree and the home lie. Every rebuild has a place of its own.
    Path,
    /// In which order a directory lists its entries.
    Order,
    /// Variables that nobody expects.
    Environment,
    /// What time it is.
    Clock,
    /// The time zone.
    TimeZone,
    /// The language and its rules.
    Locale,
    /// Who builds.
    User,
    /// On which machine.
    Host,
    /// How many processors there are to use.
    Cores,
}

impl Variation {
    /// The word in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Order => "directory-order",
            Self::Environment => "environment",
            Self::Clock => "clock",
            Self::TimeZone => "time-zone",
            Self::Locale => "locale",
            Self::User => "user",
            Self::Host => "host",
            Self::Cores => "cores",
        }
    }
}

impl fmt::Display for Variation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How far the clock is set ahead: more than a year, so that the year, the month and the day of the week change.
pub(crate) const CLOCK_AHEAD: SignedDuration = SignedDuration::from_hours(400 * 24);
/// A variable that nobody expects, and its value.
pub(crate) const VARIABLE: (&str, &str) = ("SEMEL_VARIED_NAME", "semel-varied-value");
/// The name of the machine.
pub const HOST: &str = "semel-varied-host";
/// A time zone that needs no database (POSIX, `TZ`), and what programs print of it.
const TIME_ZONE: &str = "VARIED-14";
pub(super) const TIME_ZONE_WORDS: [&str; 2] = ["VARIED", "+1400"];
/// Between Coordinated Universal Time and that time zone.
pub(super) const TIME_ZONE_HOURS: i64 = 14;

/// A user of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// The number.
    pub uid: u32,
    /// The number of the group.
    pub gid: u32,
}

/// What a machine allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The library that sets the clock of programs that are dynamically linked.
    pub faketime: Option<PathBuf>,
    /// A locale beside those without a language.
    pub locale: Option<String>,
    /// Who builds.
    pub own: User,
    /// Another user.
    pub other: Option<User>,
    /// Whether a process may have its own user and host names.
    pub namespaces: bool,
    /// How many processors there are.
    pub cores: usize,
    /// Whether a process can be held to one of them.
    pub affinity: bool,
    /// Whether the order in which files come into a directory is seen when it is listed.
    pub keeps_order: bool,
}

impl Machine {
    /// Finds out. `scratch` is an existing directory on the disk where the rebuild works.
    pub fn look(host: &HostEnvironment, scratch: &Path) -> Self {
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let own = users_of(&users)
            .find(|user| user.uid == uid)
            .map_or_else(|| User { name: uid.to_string(), uid, gid }, |user| User { gid, ..user });
        // A number that this user has not, and with a name: some programs refuse to work for nobody.
        let other = users_of(&users).find(|user| user.uid != uid && user.uid != 0);
        let runs = |wrapper: &[String]| {
            let [program, words @ ..] = wrapper else { return false };
            let mut command = Command::new(program);
            command.args(words).arg("true").env_clear().envs(&host.variables);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        Self {
            faketime: faketime(),
            locale: locales(host).into_iter().find(|name| has_language(name)),
            namespaces: runs(&namespaces(Some(HOST), other.as_ref().unwrap_or(&own))),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            affinity: runs(&affinity()),
            keeps_order: keeps_order(scratch).unwrap_or(false),
            own,
            other,
        }
    }
}

/// `NAME:PASSWORD:UID:GID:…` for each user, passwd(5).
fn users_of(passwd: &str) -> impl Iterator<Item = User> + '_ {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        let uid = fields.nth(1)?.parse().ok()?;
        Some(User { name, uid, gid: fields.next()?.parse().ok()? })
    })
}

/// Where distributions put the library; that for programs with threads comes first.
fn faketime() -> Option<PathBuf> {
    let architectures = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    let dirs = architectures.chain(["/usr/lib", "/usr/lib64", "/usr/local/lib"].map(PathBuf::from));
    let dirs: Vec<PathBuf> = dirs.map(|dir| dir.join("faketime")).collect();
    let names = ["libfaketimeMT.so.1", "libfaketime.so.1"];
    names.iter().flat_map(|name| dirs.iter().map(move |dir| dir.join(name))).find(|path| path.is_file())
}

fn locales(host: &HostEnvironment) -> Vec<String> {
    let asked = Command::new("locale").arg("-a").env_clear().envs(&host.variables).output();
    let text = asked.map(|answer| String::from_utf8_lossy(&answer.stdout).into_owned()).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// One with UTF-8, so that only the rules of the language differ.
fn has_language(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    !lower.starts_with("c.") && (lower.contains("utf8") || lower.contains("utf-8"))
}

/// Whether two directories list the same names otherwise when these came in another order. Many file systems sort them by
/// a hash of their own.
fn keeps_order(scratch: &Path) -> io::Result<bool> {
    let listed = |dir: &str, names: Vec<u32>| {
        let dir = scratch.join(dir);
        fs::create_dir(&dir)?;
        #[expect(clippy::disallowed_methods, reason = "a file of the work directory need not last")]
        names.iter().try_for_each(|name| fs::write(dir.join(name.to_string()), b""))?;
        let listed =
            fs::read_dir(&dir)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
        fs::remove_dir_all(&dir)?;
        Ok::<_, io::Error>(listed)
    };
    Ok(listed("order-up", (0..16).collect())? != listed("order-down", (0..16).rev().collect())?)
}

/// Begins user and host namespaces: as their root the host gets a name, then the user gets a number.
fn namespaces(host: Option<&str>, user: &User) -> Vec<String> {
    let inner = [
        "unshare",
        "--user",
        &format!("--map-user={}", user.uid),
        &format!("--map-group={}", user.gid),
        "--",
    ]
    .map(str::to_owned);
    let outer: &[&str] = match host {
        None => &[],
        Some(host) => {
            let name = "hostname \"$0\" && exec \"$@\"";
            &["unshare", "--user", "--map-root-user", "--uts", "--", "/bin/sh", "-c", name, host]
        }
    };
    outer.iter().map(|word| (*word).to_owned()).chain(inner).collect()
}

fn affinity() -> Vec<String> {
    ["taskset", "1"].map(str::to_owned).to_vec()
}

/// What is made otherwise, and what is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What is made, in the order of [`Variation`].
    pub made: Vec<Variation>,
    /// What cannot be made here, and why.
    pub left_out: Vec<(Variation, String)>,
}

impl Plan {
    /// Everything that a machine allows, in this sandbox.
    pub fn of(machine: &Machine, sandbox: Level, source: &Source) -> Self {
        let is_rust = source.entries.iter().any(|entry| entry.path.ends_with(b".rs"));
        Self::with(machine, sandbox, is_rust)
    }

    fn with(machine: &Machine, sandbox: Level, is_rust: bool) -> Self {
        use Variation::{Clock, Cores, Environment, Host, Locale, Order, Path, TimeZone, User};
        let fixed = sandbox == Level::Bubblewrap;
        let same = "the sandbox shows every build the same";
        let no_clock = match is_rust {
            true => "rustc does not start together with libfaketime",
            false => "libfaketime is not installed (apt-get install faketime)",
        };
        let own_names = sandbox == Level::None && machine.namespaces;
        let no_namespaces = if fixed {
            same
        } else {
            "the sandbox or the system allows no namespaces, or unshare (util-linux) is missing"
        };
        let questions = [
            (Path, !fixed, same),
            (Order, machine.keeps_order, "this file system lists names in an order of its own"),
            (Environment, true, ""),
            (Clock, machine.faketime.is_some() && !is_rust, no_clock),
            (TimeZone, true, ""),
            (Locale, machine.locale.is_some(), "no language is installed (apt-get install locales-all)"),
            (User, own_names && machine.other.is_some(), no_namespaces),
            (Host, own_names, no_namespaces),
            (
                Cores,
                machine.cores > 1 && machine.affinity,
                "there is one processor, or taskset (util-linux) is missing",
            ),
        ];
        let (made, not): (Vec<_>, Vec<_>) = questions.into_iter().partition(|(_, possible, _)| *possible);
        Self {
            made: made.into_iter().map(|(variation, ..)| variation).collect(),
            left_out: not.into_iter().map(|(variation, _, why)| (variation, why.to_owned())).collect(),
        }
    }

    /// Nothing on purpose.
    pub fn quick() -> Self {
        Self { made: Vec::new(), left_out: Vec::new() }
    }
}

/// What the commands of a rebuild see otherwise.
pub fn varied(machine: &Machine, chosen: &[Variation]) -> Varied {
    let has = |variation| chosen.contains(&variation);
    let (mut variables, mut clock) = (BTreeMap::new(), Vec::new());
    let mut set = |name: &str, value: &str| drop(variables.insert(name.to_owned(), value.to_owned()));
    if has(Variation::Environment) {
        set(VARIABLE.0, VARIABLE.1);
    }
    if has(Variation::TimeZone) {
        set("TZ", TIME_ZONE);
    }
    if let (true, Some(locale)) = (has(Variation::Locale), &machine.locale) {
        set("LC_ALL", locale);
        set("LANG", locale);
    }
    if let (true, Some(library)) = (has(Variation::Clock), &machine.faketime) {
        // For the command alone: the programs around it keep their own time. Waiting must take as long as it does, and the
        // times of files stay those on the disk.
        let ahead = CLOCK_AHEAD.as_hours() / 24;
        let preload = format!("LD_PRELOAD={}", library.display());
        let rest =
            [format!("FAKETIME=+{ahead}d"), "FAKETIME_DONT_FAKE_MONOTONIC=1".into(), "NO_FAKE_STAT=1".into()];
        clock.extend(["env".to_owned(), preload].into_iter().chain(rest));
    }
    let user = machine.other.as_ref().filter(|_| has(Variation::User));
    if let Some(user) = user {
        set("USER", &user.name);
        set("LOGNAME", &user.name);
    }
    let host = has(Variation::Host).then_some(HOST);
    let mut wrapper = Vec::new();
    if user.is_some() || host.is_some() {
        wrapper.extend(namespaces(host, user.unwrap_or(&machine.own)));
    }
    if has(Variation::Cores) {
        wrapper.extend(affinity());
    }
    wrapper.extend(clock);
    Varied { variables, wrapper }
}

/// Below the work directory of a rebuild, so that the tree lies deeper than in a build.
const PLACE: &str = "another/place";

/// Where the commands of a rebuild in `work` find their directories.
pub fn inside(work: &Path, request: &BuildRequest) -> Inside {
    let work = work.join(PLACE);
    let room = Room {
        tree: work.join("tree"),
        home: work.join("home"),
        tmp: work.join("tmp"),
        etc: work.join("etc"),
    };
    request.sandbox.inside(&room, &request.semel)
}

/// Builds again in `work`, an existing and empty directory.
pub async fn rebuild(
    request: &BuildRequest,
    machine: &Machine,
    chosen: &[Variation],
    work: &Path,
    progress: Arc<dyn Progress>,
) -> Result<Remade, BuildError> {
    let place = work.join(PLACE);
    fs::create_dir_all(&place).map_err(|source| BuildError::Work { dir: place.clone(), source })?;
    let varied = varied(machine, chosen);
    let mut again = BuildRequest { work: place, caches: None, varied, ..request.clone() };
    // Nothing of this is stored.
    again.source.project.snapshot_limit_bytes = 0;
    if chosen.contains(&Variation::Order) {
        again.source.entries.reverse();
    }
    pipeline::remake(again, progress).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        let user = |name: &str, uid| User { name: name.to_owned(), uid, gid: uid };
        Machine {
            faketime: Some(PathBuf::from("/lib/faketime.so")),
            locale: Some("et_EE.utf8".to_owned()),
            own: user("ada", 1000),
            other: Some(user("daemon", 1)),
            namespaces: true,
            cores: 4,
            affinity: true,
            keeps_order: true,
        }
    }

    #[test]
    fn what_a_machine_does_not_allow_is_left_out_and_named() {
        let words =
            |plan: &Plan| plan.left_out.iter().map(|(variation, _)| variation.as_str()).collect::<Vec<_>>();
        for (sandbox, is_rust, left_out) in [
            (Level::None, false, vec![]),
            (Level::None, true, vec!["clock"]),
            (Level::Landlock, false, vec!["user", "host"]),
            (Level::Bubblewrap, false, vec!["path", "user", "host"]),
        ] {
            let plan = Plan::with(&machine(), sandbox, is_rust);
            assert_eq!((words(&plan), plan.made.len()), (left_out.clone(), 9 - left_out.len()), "{sandbox}");
        }
        let bare = Machine {
            faketime: None,
            locale: None,
            namespaces: false,
            cores: 1,
            keeps_order: false,
            ..machine()
        };
        let plan = Plan::with(&bare, Level::None, false);
        assert_eq!(words(&plan), ["directory-order", "clock", "locale", "user", "host", "cores"]);
        assert_eq!(plan.made, [Variation::Path, Variation::Environment, Variation::TimeZone]);
    }

    #[test]
    fn only_what_was_chosen_is_made_otherwise() {
        for (chosen, names, wrapper) in [
            (vec![], vec![], ""),
            (vec![Variation::Path], vec![], ""),
            (vec![Variation::TimeZone], vec!["TZ"], ""),
            (vec![Variation::Locale], vec!["LANG", "LC_ALL"], ""),
            (vec![Variation::Cores], vec![], "taskset 1"),
            (vec![Variation::User], vec!["LOGNAME", "USER"], "unshare --user --map-user=1 --map-group=1 --"),
            (
                vec![Variation::Clock],
                vec![],
                "env LD_PRELOAD=/lib/faketime.so FAKETIME=+400d FAKETIME_DONT_FAKE_MONOTONIC=1 NO_FAKE_STAT=1",
            ),
            (
                vec![Variation::Host],
                vec![],
                "unshare --user --map-root-user --uts -- /bin/sh -c hostname \"$0\" && exec \"$@\" semel-varied-host \
                 unshare --user --map-user=1000 --map-group=1000 --",
            ),
        ] {
            let varied = varied(&machine(), &chosen);
            assert_eq!(varied.variables.keys().map(String::as_str).collect::<Vec<_>>(), names, "{chosen:?}");
            assert_eq!(varied.wrapper.join(" "), wrapper, "{chosen:?}");
        }
    }

    #[test]
    fn a_locale_with_a_language_is_one_with_utf8() {
        for (name, expected) in [
            ("C", false),
            ("C.utf8", false),
            ("POSIX", false),
            ("et_EE.utf8", true),
            ("fr_FR.UTF-8", true),
            ("de_DE", false),
        ] {
            assert_eq!(has_language(name), expected, "{name}");
        }
    }
}
