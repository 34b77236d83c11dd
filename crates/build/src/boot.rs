//! Boot: starts the virtual machine of a disk image and waits for what it says when it is ready.
//!
//! QEMU runs it with the image read-only below a throw-away overlay, without a network and without a screen; what the
//! machine prints on its serial console goes into the build log. The processor is emulated: KVM would be faster, but where a
//! build runs in a virtual machine it is often there and does not work, and this is the same everywhere. Where bubblewrap
//! works, QEMU itself runs in it: without a network, and able to write its overlay only. It ends when the machine has said
//! what is awaited, and when this process is gone. Where there is no QEMU, nothing runs, and the report says why. Sources: QEMU "Invocation", `-snapshot`, `-nic`, `-serial`.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use semel_model::platform::Platform;
use semel_model::project::{BootCheck, DiskFormat, DiskSpec, Firmware};

use crate::closure::{SmokeOutcome, Smoked};
use crate::disk::Disk;
use crate::log::BuildLog;
use crate::sandbox::{guarded, on_path, try_bubblewrap};
use crate::watch::{self, Cancel, Clock, Ended, WatchError};

/// What is started, and where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BootRequest<'a> {
    /// The disk image; it is not written.
    pub(crate) image: &'a Path,
    /// What the project says about it.
    pub(crate) disk: Option<&'a DiskSpec>,
    /// What it runs on.
    pub(crate) platform: &'a Platform,
    /// The checks: [`BootCheck`].
    pub(crate) commands: &'a [String],
    /// The directories in which programs of this machine are looked for.
    pub(crate) host_path: &'a str,
    /// The running program, which guards QEMU.
    pub(crate) semel: &'a Path,
    /// A directory for the overlay; it is made where it is not there.
    pub(crate) scratch: &'a Path,
    /// How long the commands before took: the times in the log go on.
    pub(crate) before: Duration,
}

/// Why the machine did not pass.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// It ended, or was not ready in time.
    #[error("smoke: `{command}`: {ending}")]
    Failed {
        /// The check as the definition has it.
        command: String,
        /// What happened instead.
        ending: String,
        /// The last lines of its console.
        excerpt: Vec<String>,
    },
    /// The caller stopped it.
    #[error("smoke: stopped")]
    Stopped,
    /// QEMU could not be started or watched.
    #[error("smoke: cannot run `{command}`")]
    Start {
        /// The check as the definition has it.
        command: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl BootError {
    /// The last lines of the console.
    pub fn excerpt(&self) -> &[String] {
        match self {
            Self::Failed { excerpt, .. } => excerpt,
            Self::Stopped | Self::Start { .. } => &[],
        }
    }
}

/// Starts the machine once for each check; the first that fails ends it.
pub(crate) fn run(
    request: &BootRequest<'_>,
    log: &BuildLog,
    cancel: &Cancel,
) -> Result<Vec<Smoked>, BootError> {
    let clock = Clock { before: request.before, began: Instant::now() };
    let machine = match Machine::find(request) {
        Ok(machine) => machine,
        Err(reason) => return Ok(Smoked::none_ran(request.commands, &reason)),
    };
    let mut passed = Vec::new();
    for command in request.commands {
        let unstarted = |source| BootError::Start { command: command.clone(), source };
        let check = BootCheck::parse(command).ok_or_else(|| unstarted(io::ErrorKind::InvalidInput.into()))?;
        log.begin("smoke", command, clock.now()).map_err(unstarted)?;
        let qemu = machine.command(request).map_err(unstarted)?;
        let ending = match watch::watch_until(qemu, &check.until, log, clock, check.within.to_std(), cancel) {
            Ok(None) => {
                let (outcome, sandbox) = (SmokeOutcome::Passed, Some("qemu"));
                passed.push(Smoked { command: command.clone(), outcome, sandbox, reason: None });
                continue;
            }
            Ok(Some(Ended::Stopped)) => return Err(BootError::Stopped),
            Ok(Some(Ended::TooLate)) => {
                format!("it did not say '{}' within {} s", check.until, check.within.to_std().as_secs())
            }
            Ok(Some(Ended::With(_))) => format!("it ended without saying '{}'", check.until),
            Err(WatchError::Start(source) | WatchError::Log(source)) => return Err(unstarted(source)),
        };
        return Err(BootError::Failed { command: command.clone(), ending, excerpt: log.excerpt() });
    }
    Ok(passed)
}

/// QEMU, and what it needs for this machine.
struct Machine {
    program: PathBuf,
    /// What holds it back.
    jail: Option<PathBuf>,
    /// The machine's own words: its type, and its firmware.
    words: Vec<String>,
}

/// Where distributions have the firmware for UEFI, one file with an empty store of variables.
const UEFI: [&str; 4] = [
    "/usr/share/ovmf/OVMF.fd",
    "/usr/share/qemu/OVMF.fd",
    "/usr/share/edk2/ovmf/OVMF.fd",
    "/usr/share/edk2-ovmf/x64/OVMF.fd",
];
const UEFI_ARM: [&str; 2] =
    ["/usr/share/qemu-efi-aarch64/QEMU_EFI.fd", "/usr/share/edk2/aarch64/QEMU_EFI.fd"];

impl Machine {
    /// What can start the image; else why nothing can.
    fn find(request: &BootRequest<'_>) -> Result<Self, String> {
        let (name, kind, firmware) = match request.platform.architecture.as_str() {
            "amd64" => ("qemu-system-x86_64", "q35", &UEFI[..]),
            "arm64" => ("qemu-system-aarch64", "virt", &UEFI_ARM[..]),
            other => return Err(format!("nothing is known here that starts a machine for {other}")),
        };
        let program = on_path(request.host_path, name).ok_or_else(|| format!("{name} is not installed"))?;
        let mut words = ["-machine", kind].map(str::to_owned).to_vec();
        let wants_uefi = request.disk.and_then(|disk| disk.firmware) == Some(Firmware::Uefi);
        // ARM machines have no other.
        if wants_uefi || kind == "virt" {
            let found = firmware.iter().find(|file| Path::new(file).is_file());
            let file = found.ok_or("no UEFI firmware is installed for QEMU: the package ovmf has it")?;
            words.extend(["-bios".to_owned(), (*file).to_owned()]);
        }
        Ok(Self { program, jail: try_bubblewrap(request.host_path).ok(), words })
    }

    /// QEMU with the image, below a guard.
    fn command(&self, request: &BootRequest<'_>) -> io::Result<Command> {
        let disk = Disk::read(request.image)?.map_err(io::Error::other)?;
        std::fs::create_dir_all(request.scratch)?;
        let mut line = self.jail(request.scratch);
        line.push(self.program.clone().into());
        let mut words = |words: &[&str]| line.extend(words.iter().map(OsString::from));
        words(&["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-m", "1024"]);
        words(&["-accel", "tcg", "-cpu", "max", "-nic", "none", "-serial", "stdio", "-monitor", "none"]);
        line.extend(self.words.iter().map(OsString::from));
        line.extend(["-drive".into(), drive(request.image, disk.format)]);
        let mut command = guarded(line, Path::new("/"), request.semel);
        command.env_clear().env("PATH", request.host_path).env("TMPDIR", request.scratch);
        Ok(command)
    }

    /// What holds QEMU back.
    fn jail(&self, scratch: &Path) -> Vec<OsString> {
        let Some(bubblewrap) = &self.jail else { return Vec::new() };
        let mut line = vec![bubblewrap.clone().into()];
        line.extend(
            ["--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "--bind"].map(OsString::from),
        );
        line.extend([scratch.into(), scratch.into()]);
        line.extend(["--proc", "/proc", "--dev", "/dev", "--"].map(OsString::from));
        line
    }
}

/// The disk, which QEMU does not write. A comma in an option's value is written twice.
fn drive(image: &Path, format: DiskFormat) -> OsString {
    let file = image.display().to_string().replace(',', ",,");
    format!("file={file},format={},if=virtio,snapshot=on", format.as_str()).into()
}
