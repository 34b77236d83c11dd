//! Preflight: which levels this host offers, and, for one that it does not, why and what would change that.
//!
//! Nothing is guessed: `bwrap` is run once with every namespace that a build uses, and a thread of this process asks the
//! kernel for Landlock and gives it up with its own end. That takes some milliseconds.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Kind, Level, Sandbox, bubblewrap, confine};

/// What this host offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preflight {
    /// The program, if it works here.
    pub bubblewrap: Result<PathBuf, Missing>,
    /// The version of the kernel's interface, if it has one and filters system calls.
    pub landlock: Result<u32, Missing>,
}

/// Why a level is not there, and what would change that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Missing {
    /// The reason.
    pub reason: String,
    /// A command or a setting, where there is one.
    pub fix: Option<String>,
}

/// A level was asked for that this host does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this host has no sandbox {level}")]
pub struct Unavailable {
    /// What was asked for.
    pub level: Level,
    /// Why it is not there.
    #[source]
    pub missing: Missing,
}

impl Preflight {
    /// The sandbox of the level that was asked for, or the strongest that works.
    pub fn choose(&self, wanted: Option<Level>) -> Result<Sandbox, Unavailable> {
        match wanted {
            Some(Level::None) => Ok(Sandbox::none(Vec::new())),
            Some(Level::Landlock) => self
                .with_landlock(Vec::new())
                .map_err(|missing| Unavailable { level: Level::Landlock, missing }),
            Some(Level::Bubblewrap) => {
                self.with_bubblewrap().map_err(|missing| Unavailable { level: Level::Bubblewrap, missing })
            }
            None => Ok(self.strongest()),
        }
    }

    fn strongest(&self) -> Sandbox {
        let mut because = Vec::new();
        self.with_bubblewrap()
            .or_else(|missing| {
                because.push(missing.reason);
                self.with_landlock(because.clone())
            })
            .unwrap_or_else(|missing| {
                because.push(missing.reason);
                Sandbox::none(because)
            })
    }

    fn with_bubblewrap(&self) -> Result<Sandbox, Missing> {
        let program = self.bubblewrap.clone()?;
        Ok(Sandbox { kind: Kind::Bubblewrap { program }, weaker_because: Vec::new() })
    }

    fn with_landlock(&self, weaker_because: Vec<String>) -> Result<Sandbox, Missing> {
        let abi = self.landlock.clone()?;
        Ok(Sandbox { kind: Kind::Landlock { abi }, weaker_because })
    }
}

/// Looks what this host offers. `path` is the caller's `PATH`.
pub fn preflight(path: &str) -> Preflight {
    Preflight { bubblewrap: try_bubblewrap(path), landlock: confine::try_landlock() }
}

pub(crate) fn try_bubblewrap(path: &str) -> Result<PathBuf, Missing> {
    if !cfg!(target_os = "linux") {
        return Err(Missing { reason: "namespaces exist on Linux only".to_owned(), fix: None });
    }
    let program = on_path(path, "bwrap").ok_or_else(|| Missing {
        reason: "bubblewrap is not installed".to_owned(),
        fix: Some("apt-get install bubblewrap".to_owned()),
    })?;
    let tried = Command::new(&program)
        .args(bubblewrap::TRIAL)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .output();
    match tried {
        Ok(output) if output.status.success() => Ok(program),
        Ok(output) => Err(diagnose(&String::from_utf8_lossy(&output.stderr), &Restrictions::of_host())),
        Err(error) => {
            Err(Missing { reason: format!("{} cannot be started: {error}", program.display()), fix: None })
        }
    }
}

/// A program of this host. A directory that is relative would be another one for a command.
pub(crate) fn on_path(path: &str, program: &str) -> Option<PathBuf> {
    path.split(':')
        .map(|dir| Path::new(dir).join(program))
        .find(|place| place.is_absolute() && place.is_file())
}

/// What keeps programs from making namespaces.
#[derive(Debug, Clone, Default)]
struct Restrictions {
    /// `kernel.apparmor_restrict_unprivileged_userns` is not 0 (Ubuntu since 23.10).
    by_apparmor: bool,
    /// `kernel.unprivileged_userns_clone` is 0 (older Debian, hardened kernels).
    by_clone: bool,
    /// `user.max_user_namespaces` is 0 (Red Hat, hardened hosts).
    by_limit: bool,
    /// This is inside a container.
    container: bool,
}

impl Restrictions {
    fn of_host() -> Self {
        let setting = |name: &str| {
            let text = std::fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?;
            text.trim().parse::<i64>().ok()
        };
        Self {
            by_apparmor: setting("kernel/apparmor_restrict_unprivileged_userns")
                .is_some_and(|value| value != 0),
            by_clone: setting("kernel/unprivileged_userns_clone") == Some(0),
            by_limit: setting("user/max_user_namespaces") == Some(0),
            container: ["/.dockerenv", "/run/.containerenv"].iter().any(|mark| Path::new(mark).exists()),
        }
    }
}

/// What `bwrap` said, with the reason behind it as far as the host tells.
fn diagnose(said: &str, restrictions: &Restrictions) -> Missing {
    let said = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it failed").trim();
    let said = said.strip_prefix("bwrap: ").unwrap_or(said);
    let (why, fix) = if restrictions.by_clone {
        ("user namespaces are for root only", "sysctl kernel.unprivileged_userns_clone=1")
    } else if restrictions.by_limit {
        ("user namespaces are switched off", "sysctl user.max_user_namespaces=10000")
    } else if restrictions.by_apparmor {
        (
            "AppArmor lets no program make user namespaces that has no profile for it",
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or a profile with `userns,` for bwrap in \
             /etc/apparmor.d",
        )
    } else if restrictions.container {
        (
            "the container's own restrictions forbid namespaces",
            "docker run --security-opt seccomp=unconfined --security-opt systempaths=unconfined …",
        )
    } else {
        return Missing { reason: format!("bubblewrap does not work here ({said})"), fix: None };
    };
    Missing { reason: format!("bubblewrap does not work here: {why} ({said})"), fix: Some(fix.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(reason: &str) -> Missing {
        Missing { reason: reason.to_owned(), fix: None }
    }

    #[test]
    fn the_strongest_level_is_taken_and_says_what_was_not_there() {
        let all = Preflight { bubblewrap: Ok("/usr/bin/bwrap".into()), landlock: Ok(7) };
        let landlock = Preflight { bubblewrap: Err(missing("no bwrap")), landlock: Ok(5) };
        let none = Preflight { bubblewrap: Err(missing("no bwrap")), landlock: Err(missing("old kernel")) };
        let cases: [(&Preflight, Level, &[&str]); 3] = [
            (&all, Level::Bubblewrap, &[]),
            (&landlock, Level::Landlock, &["no bwrap"]),
            (&none, Level::None, &["no bwrap", "old kernel"]),
        ];
        for (preflight, level, because) in cases {
            let chosen = preflight.choose(None).unwrap();
            assert_eq!((chosen.level(), chosen.weaker_because()), (level, &because.map_to_strings()[..]));
        }
    }

    trait MapToStrings {
        fn map_to_strings(&self) -> Vec<String>;
    }

    impl MapToStrings for &[&str] {
        fn map_to_strings(&self) -> Vec<String> {
            self.iter().map(ToString::to_string).collect()
        }
    }

    #[test]
    fn a_level_that_was_asked_for_is_taken_or_refused_with_the_reason() {
        let host = Preflight { bubblewrap: Err(missing("no bwrap")), landlock: Ok(7) };
        assert_eq!(host.choose(Some(Level::Landlock)).unwrap().landlock_abi(), Some(7));
        assert_eq!(host.choose(Some(Level::None)).unwrap().level(), Level::None);
        let refused = host.choose(Some(Level::Bubblewrap)).unwrap_err();
        assert_eq!(refused.to_string(), "this host has no sandbox bubblewrap");
        assert_eq!(refused.missing, missing("no bwrap"));
    }

    #[test]
    fn what_bwrap_says_is_told_with_the_setting_behind_it() {
        let denied = "bwrap: setting up uid map: Permission denied\n";
        let none = Restrictions::default();
        let cases = [
            (denied, none.clone(), "(setting up uid map: Permission denied)", None),
            (
                denied,
                Restrictions { by_apparmor: true, ..none.clone() },
                "AppArmor",
                Some("apparmor_restrict"),
            ),
            (
                denied,
                Restrictions { by_clone: true, ..none.clone() },
                "for root only",
                Some("userns_clone=1"),
            ),
            (
                denied,
                Restrictions { by_limit: true, ..none.clone() },
                "switched off",
                Some("max_user_namespaces"),
            ),
            (
                denied,
                Restrictions { container: true, ..none.clone() },
                "container",
                Some("seccomp=unconfined"),
            ),
            ("", none, "(it failed)", None),
        ];
        for (said, restrictions, reason, fix) in cases {
            let told = diagnose(said, &restrictions);
            assert!(told.reason.contains(reason), "{told:?}");
            assert_eq!(told.fix.is_some(), fix.is_some(), "{told:?}");
            assert!(told.fix.unwrap_or_default().contains(fix.unwrap_or_default()), "{reason}");
        }
    }
}
