//! Confine: a process gives up rights, and then becomes the command.
//!
//! Three things, which a child inherits and nothing gives back: a Landlock ruleset (which files), a seccomp filter (which
//! system calls), and no privileges by running a program (`no_new_privs`). Inside namespaces only the filter is needed,
//! for the parts of the kernel that have no namespaces.
//!
//! Sources: Linux, "Landlock: unprivileged access control" (`Documentation/userspace-api/landlock.rst`) and "Seccomp
//! BPF" (`Documentation/userspace-api/seccomp_filter.rst`).

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{HostEnvironment, Permit, Room};

/// What is given up.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Confinement {
    /// Every path that remains, where files are restricted.
    paths: Option<Paths>,
    /// What the filter is for.
    calls: Calls,
}

/// The paths that remain.
#[derive(Debug, Serialize, Deserialize)]
struct Paths {
    /// May be read and run.
    programs: Vec<PathBuf>,
    /// May be read.
    facts: Vec<PathBuf>,
    /// May be read and written.
    devices: Vec<PathBuf>,
    /// Everything below may be read, run, written, made and removed.
    own: Vec<PathBuf>,
}

/// Which system calls are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Calls {
    /// What namespaces do not cover.
    InNamespaces,
    /// The same, and what reaches other processes or leaves a ruleset.
    Shared,
    /// The same, and every socket that could lead anywhere.
    SharedOffline,
}

/// What the kernel tells about itself, without what it tells about processes: `/proc/PID` of anybody stays closed.
const FACTS: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/filesystems",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/sys",
    "/proc/uptime",
    "/proc/version",
    "/sys/devices/system/cpu",
    "/etc/group",
];

/// Devices that hold nothing of anybody's.
const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

impl Confinement {
    /// Files and system calls: all that there is without namespaces.
    pub(super) fn with_landlock(permit: Permit, room: &Room, host: &HostEnvironment, semel: &Path) -> Self {
        let mut programs = host.readable(permit.network);
        programs.push(semel.to_owned());
        let mut facts: Vec<PathBuf> = FACTS.iter().map(PathBuf::from).collect();
        facts.push(PathBuf::from("/etc/passwd"));
        if permit.network {
            facts.extend_from_slice(host.way_out.authorities());
        }
        let paths = Paths {
            programs,
            facts,
            devices: DEVICES.iter().map(PathBuf::from).collect(),
            own: vec![room.tree.clone(), room.home.clone(), room.tmp.clone()],
        };
        let calls = if permit.network { Calls::Shared } else { Calls::SharedOffline };
        Self { paths: Some(paths), calls }
    }

    /// What namespaces do not cover.
    pub(super) fn inside_namespaces() -> Self {
        Self { paths: None, calls: Calls::InNamespaces }
    }
}

/// What a command could do all the same, by the version of the kernel's interface.
pub(super) fn not_enforced(abi: u32) -> Vec<&'static str> {
    let missing = [
        (3, "truncating other files of the caller's"),
        (5, "controlling devices by ioctl"),
        (6, "signals to other processes of the caller's"),
        (9, "in fetch: connecting to programs of this host through their sockets"),
    ];
    let always = ["fixed paths", "permissions and times of other files of the caller's"];
    let by_version = missing.into_iter().filter(|(since, _)| abi < *since).map(|(_, what)| what);
    always.into_iter().chain(by_version).collect()
}

#[cfg(target_os = "linux")]
pub(super) use linux::{become_confined, try_landlock};

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use std::ffi::OsString;
    use std::io;

    use super::super::Missing;
    use super::Confinement;

    pub(crate) fn try_landlock() -> Result<u32, Missing> {
        Err(Missing { reason: "Landlock exists on Linux only".to_owned(), fix: None })
    }

    pub(crate) fn become_confined(_: &Confinement, _: &OsString, _: &[OsString]) -> io::Error {
        io::ErrorKind::Unsupported.into()
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) use elsewhere::{become_confined, try_landlock};

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::BTreeMap;
    use std::ffi::OsString;
    use std::io;
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;

    use landlock::{
        ABI, Access as _, AccessFs, BitFlags, LandlockStatus, RestrictionStatus, Ruleset, RulesetAttr as _,
        RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope, path_beneath_rules,
    };
    use rustix::process::Signal;
    use rustix::thread::{CapabilitySet, CapabilitySets};
    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
        SeccompRule,
    };

    use super::super::Missing;
    use super::{Calls, Confinement, Paths};

    /// The newest interface that this program knows; of an older kernel's it takes what there is.
    const NEWEST: ABI = ABI::V9;

    /// Whether the kernel has Landlock and seccomp. A ruleset holds for one thread: this one ends with the answer.
    pub(crate) fn try_landlock() -> Result<u32, Missing> {
        let tried = std::thread::spawn(|| {
            Ruleset::default().handle_access(AccessFs::from_all(ABI::V1))?.create()?.restrict_self()
        });
        let no = |reason: &str, fix: Option<&str>| {
            Err(Missing { reason: reason.to_owned(), fix: fix.map(str::to_owned) })
        };
        let status: Result<RestrictionStatus, RulesetError> =
            tried.join().map_err(|_| Missing { reason: "Landlock cannot be tried".to_owned(), fix: None })?;
        match status.map(|status| status.landlock) {
            Ok(LandlockStatus::Available { effective_abi, .. }) if filters_calls() => {
                Ok(effective_abi as u32)
            }
            Ok(LandlockStatus::Available { .. }) => {
                no("the kernel filters no system calls (CONFIG_SECCOMP_FILTER)", None)
            }
            Ok(LandlockStatus::NotEnabled) => no(
                "Landlock is switched off in this kernel",
                Some("add landlock to lsm=… on the kernel's command line"),
            ),
            Ok(_) => no("this kernel has no Landlock (Linux 5.13 or newer, CONFIG_SECURITY_LANDLOCK)", None),
            Err(error) => Err(Missing { reason: format!("Landlock cannot be used: {error}"), fix: None }),
        }
    }

    fn filters_calls() -> bool {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        status.lines().any(|line| line.starts_with("Seccomp:")) && cfg!(target_pointer_width = "64")
    }

    /// Becomes the command. Returns only if it cannot.
    pub(crate) fn become_confined(
        confinement: &Confinement,
        program: &OsString,
        arguments: &[OsString],
    ) -> io::Error {
        match confine(confinement) {
            Ok(()) => Command::new(program).args(arguments).exec(),
            Err(error) => error,
        }
    }

    fn confine(confinement: &Confinement) -> io::Result<()> {
        // Whoever is above may be killed in a way that leaves it no time to end this.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        if let Some(paths) = &confinement.paths {
            let status = restrict_files(paths).map_err(io::Error::other)?;
            // The preflight has tried it. Where it does not hold all the same, nothing is run.
            if status == RulesetStatus::NotEnforced {
                return Err(io::Error::other("the kernel does not enforce the Landlock ruleset"));
            }
        }
        drop_capabilities()?;
        for filter in filters(confinement.calls).map_err(io::Error::other)? {
            seccompiler::apply_filter(&filter).map_err(io::Error::other)?;
        }
        Ok(())
    }

    fn restrict_files(paths: &Paths) -> Result<RulesetStatus, RulesetError> {
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev;
        let own: BitFlags<AccessFs> =
            AccessFs::from_all(NEWEST) & !(AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev);
        let status = Ruleset::default()
            .handle_access(AccessFs::from_all(NEWEST))?
            .scope(Scope::from_all(NEWEST))?
            .create()?
            .add_rules(path_beneath_rules(&paths.programs, read | AccessFs::Execute))?
            .add_rules(path_beneath_rules(&paths.facts, read))?
            .add_rules(path_beneath_rules(&paths.devices, device))?
            .add_rules(path_beneath_rules(&paths.own, own))?
            .restrict_self()?;
        Ok(status.ruleset)
    }

    /// Root without capabilities is a user like any other. That running a program does not give them back follows from
    /// `no_new_privs`, which the filter needs too.
    fn drop_capabilities() -> io::Result<()> {
        let none = CapabilitySet::empty();
        let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
        Ok(rustix::thread::set_capabilities(None, sets)?)
    }

    /// Parts of the kernel that belong to nobody's namespace, or that builds have no use for.
    const NEVER: [libc::c_long; 28] = [
        libc::SYS_acct,
        libc::SYS_add_key,
        libc::SYS_bpf,
        libc::SYS_clock_adjtime,
        libc::SYS_clock_settime,
        libc::SYS_delete_module,
        libc::SYS_fanotify_init,
        libc::SYS_finit_module,
        libc::SYS_init_module,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
        libc::SYS_io_uring_setup,
        libc::SYS_kexec_load,
        libc::SYS_keyctl,
        libc::SYS_lookup_dcookie,
        libc::SYS_nfsservctl,
        libc::SYS_open_by_handle_at,
        libc::SYS_perf_event_open,
        libc::SYS_quotactl,
        libc::SYS_reboot,
        libc::SYS_request_key,
        libc::SYS_settimeofday,
        libc::SYS_swapoff,
        libc::SYS_swapon,
        libc::SYS_syslog,
        libc::SYS_userfaultfd,
        libc::SYS_vhangup,
        libc::SYS_adjtimex,
    ];

    /// What leads to other processes, or out of a ruleset, where processes and mounts are the host's.
    const WHERE_SHARED: [libc::c_long; 21] = [
        libc::SYS_fsconfig,
        libc::SYS_fsmount,
        libc::SYS_fsopen,
        libc::SYS_fspick,
        libc::SYS_kcmp,
        libc::SYS_mount,
        libc::SYS_mount_setattr,
        libc::SYS_move_mount,
        libc::SYS_mq_open,
        libc::SYS_msgget,
        libc::SYS_open_tree,
        libc::SYS_pidfd_getfd,
        libc::SYS_pivot_root,
        libc::SYS_process_madvise,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_ptrace,
        libc::SYS_semget,
        libc::SYS_setns,
        libc::SYS_shmget,
        libc::SYS_unshare,
    ];

    /// What `clone` makes new namespaces for.
    const NEW_NAMESPACES: libc::c_int = libc::CLONE_NEWNS
        | libc::CLONE_NEWCGROUP
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET;

    /// Families that namespaces cover. Others, as AF_VSOCK between a virtual machine and its host, have none.
    const FAMILIES: [libc::c_int; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

    type Rules = BTreeMap<i64, Vec<SeccompRule>>;

    /// The filters, as the kernel reads them. A call that any of them refuses is refused.
    fn filters(calls: Calls) -> Result<Vec<BpfProgram>, seccompiler::BackendError> {
        let mut rules: Rules = NEVER.iter().map(|call| (*call, Vec::new())).collect();
        let families: &[libc::c_int] = match calls {
            Calls::InNamespaces | Calls::Shared => &FAMILIES,
            Calls::SharedOffline => &[libc::AF_UNIX],
        };
        for call in [libc::SYS_socket, libc::SYS_socketpair] {
            rules.insert(call, vec![none_of(families)?]);
        }
        if calls == Calls::InNamespaces {
            return Ok(vec![compile(rules, libc::EPERM)?]);
        }
        rules.extend(WHERE_SHARED.iter().map(|call| (*call, Vec::new())));
        rules.insert(libc::SYS_clone, with_any(NEW_NAMESPACES)?);
        if calls == Calls::SharedOffline {
            // Also what is left, AF_UNIX, leads to programs of the host that have a network.
            rules.insert(libc::SYS_connect, Vec::new());
            rules.insert(libc::SYS_sendto, vec![with_address()?]);
            // The address of `sendmsg` cannot be seen; only sockets of this type have a use for one.
            let type_of = SeccompCmpOp::MaskedEq(0xf);
            let datagrams = SeccompRule::new(vec![condition(1, type_of, libc::SOCK_DGRAM)?])?;
            rules.entry(libc::SYS_socket).or_default().push(datagrams);
        }
        // A filter cannot see the flags of `clone3`; told that there is none, the C library uses `clone`.
        let clone3 = Rules::from([(libc::SYS_clone3, Vec::new())]);
        Ok(vec![compile(rules, libc::EPERM)?, compile(clone3, libc::ENOSYS)?])
    }

    /// The first argument is none of these.
    fn none_of(values: &[libc::c_int]) -> Result<SeccompRule, seccompiler::BackendError> {
        let not = |value: &libc::c_int| condition(0, SeccompCmpOp::Ne, *value);
        SeccompRule::new(values.iter().map(not).collect::<Result<_, _>>()?)
    }

    /// The first argument has any of these bits.
    fn with_any(bits: libc::c_int) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
        (0..32)
            .map(|shift| 1_i32 << shift)
            .filter(|bit| bits & bit != 0)
            .map(|bit| {
                SeccompRule::new(vec![condition(
                    0,
                    SeccompCmpOp::MaskedEq(u64::from(bit.cast_unsigned())),
                    bit,
                )?])
            })
            .collect()
    }

    /// The fifth argument, a pointer, is given.
    fn with_address() -> Result<SeccompRule, seccompiler::BackendError> {
        SeccompRule::new(vec![SeccompCondition::new(4, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0)?])
    }

    fn condition(
        argument: u8,
        operator: SeccompCmpOp,
        value: libc::c_int,
    ) -> Result<SeccompCondition, seccompiler::BackendError> {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, u64::from(value.cast_unsigned()))
    }

    fn compile(mut rules: Rules, error: libc::c_int) -> Result<BpfProgram, seccompiler::BackendError> {
        second_numbers(&mut rules);
        let refuse = SeccompAction::Errno(error.cast_unsigned());
        SeccompFilter::new(rules, SeccompAction::Allow, refuse, std::env::consts::ARCH.try_into()?)?
            .try_into()
    }

    /// On x86-64 every call has a second number, that of the x32 interface (`arch/x86/entry/syscalls/syscall_64.tbl`):
    /// the same with a bit set, apart from a few.
    #[cfg(target_arch = "x86_64")]
    fn second_numbers(rules: &mut Rules) {
        const X32: i64 = 0x4000_0000;
        let others = BTreeMap::from([
            (libc::SYS_ptrace, 521),
            (libc::SYS_kexec_load, 528),
            (libc::SYS_process_vm_readv, 539),
            (libc::SYS_process_vm_writev, 540),
        ]);
        let second = |call: &i64| X32 | others.get(call).copied().unwrap_or(*call);
        let again: Rules = rules.iter().map(|(call, rules)| (second(call), rules.clone())).collect();
        rules.extend(again);
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn second_numbers(_: &mut Rules) {}
}

#[cfg(test)]
mod tests {
    use super::not_enforced;

    #[test]
    fn an_older_kernel_enforces_less_and_says_so() {
        assert_eq!(not_enforced(9).len(), 2);
        assert!(
            not_enforced(7).contains(&"in fetch: connecting to programs of this host through their sockets")
        );
        assert_eq!(not_enforced(1).len(), 6);
    }
}
