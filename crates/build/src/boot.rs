//! Boot: starts the virtual machine of a disk image and waits for what it says when it is ready.
//!
//! QEMU runs it with the image read-only below a throw-away overlay, without a network and without a screen; what the
//! machine prints on its serial console goes into the build log. The processor is emulated: KVM would be faster, but where a
//! build runs in a virtual machine it is often there and does not work, and this is the same everywhere. Where bubblewrap
//! works, QEMU itself runs in it: without a network, able to write its overlay only, and gone when this process is. Where
//! there is no QEMU, nothing runs, and the report says why. Sources: QEMU "Invocation", `-snapshot`, `-nic`, `-serial`.

use std::io::{self, PipeReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use memchr::memmem;
use semel_model::platform::Platform;
use semel_model::project::{BootCheck, DiskFormat, DiskSpec, Firmware};

use crate::closure::{SmokeOutcome, Smoked};
use crate::disk::Disk;
use crate::log::BuildLog;
use crate::sandbox::{on_path, try_bubblewrap};
use crate::watch::Cancel;

/// What is started, and where.
#[derive(Debug, Clone, Copy)]
pub struct BootRequest<'a> {
    /// The disk image; it is not written.
    pub image: &'a Path,
    /// What the project says about it.
    pub disk: Option<&'a DiskSpec>,
    /// What it runs on.
    pub platform: &'a Platform,
    /// The checks: [`BootCheck`].
    pub commands: &'a [String],
    /// The directories in which programs of this machine are looked for.
    pub host_path: &'a str,
    /// A directory for the overlay; it is made where it is not there.
    pub scratch: &'a Path,
    /// How long the commands before took: the times in the log go on.
    pub before: Duration,
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
pub fn run(request: &BootRequest<'_>, log: &BuildLog, cancel: &Cancel) -> Result<Vec<Smoked>, BootError> {
    let began = Instant::now();
    let machine = match Machine::find(request) {
        Ok(machine) => machine,
        Err(reason) => return Ok(Smoked::none_ran(request.commands, &reason)),
    };
    let mut passed = Vec::new();
    for command in request.commands {
        let unstarted = |source| BootError::Start { command: command.clone(), source };
        let now = || request.before + began.elapsed();
        log.begin("smoke", command, now()).map_err(unstarted)?;
        let check = BootCheck::parse(command).ok_or_else(|| unstarted(io::ErrorKind::InvalidInput.into()))?;
        let ended = machine.boot(request, &check, log, &now, cancel).map_err(unstarted)?;
        log.end_command(now()).map_err(unstarted)?;
        let ending = match ended {
            Ended::Ready => {
                let (outcome, sandbox) = (SmokeOutcome::Passed, Some("qemu"));
                passed.push(Smoked { command: command.clone(), outcome, sandbox, reason: None });
                continue;
            }
            Ended::Stopped => return Err(BootError::Stopped),
            Ended::TooLate => {
                format!("it did not say '{}' within {} s", check.until, check.within.to_std().as_secs())
            }
            Ended::Off => format!("it ended without saying '{}'", check.until),
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

    fn boot(
        &self,
        request: &BootRequest<'_>,
        check: &BootCheck,
        log: &BuildLog,
        now: &dyn Fn() -> Duration,
        cancel: &Cancel,
    ) -> io::Result<Ended> {
        let disk = Disk::read(request.image)?.map_err(io::Error::other)?;
        std::fs::create_dir_all(request.scratch)?;
        let (reader, writer) = io::pipe()?;
        let mut command = self.command(request, disk.format);
        command.env_clear().env("PATH", request.host_path).env("TMPDIR", request.scratch).current_dir("/");
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        let mut child = Ending(command.spawn()?);
        // The writing ends of the pipe must be the child's alone.
        drop(command);
        let ended = watch(&console(reader), check, log, now, cancel);
        child.end()?;
        ended
    }

    fn command(&self, request: &BootRequest<'_>, format: DiskFormat) -> Command {
        // A comma in an option's value is written twice.
        let file = request.image.display().to_string().replace(',', ",,");
        let drive = format!("file={file},format={},if=virtio,snapshot=on", format.as_str());
        let mut command = match &self.jail {
            Some(bubblewrap) => {
                let mut command = Command::new(bubblewrap);
                command.args(["--unshare-all", "--die-with-parent", "--new-session", "--ro-bind", "/", "/"]);
                command.arg("--bind").args([request.scratch; 2]);
                command.args(["--proc", "/proc", "--dev", "/dev", "--"]).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-m", "1024"]);
        command.args(["-accel", "tcg", "-cpu", "max", "-nic", "none"]);
        command.args(["-serial", "stdio", "-monitor", "none"]).args(&self.words).args(["-drive", &drive]);
        command
    }
}

/// QEMU, which ends with what watches it.
struct Ending(Child);

impl Ending {
    fn end(&mut self) -> io::Result<()> {
        // It may have ended by itself.
        let _ = self.0.kill();
        self.0.wait().map(drop)
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        // Nothing can be done about a machine that cannot be ended.
        let _ = self.end();
    }
}

enum Ended {
    Ready,
    Off,
    TooLate,
    Stopped,
}

/// How soon the machine ends after the caller stopped it.
const ATTENTION: Duration = Duration::from_millis(100);

/// What the machine prints, in pieces.
fn console(mut reader: PipeReader) -> Receiver<Vec<u8>> {
    // A machine that prints more than is taken waits, as at a slow line.
    let (tell, said) = sync_channel(16);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(some @ 1..) = reader.read(&mut buffer) {
            if tell.send(buffer[..some].to_vec()).is_err() {
                break;
            }
        }
    });
    said
}

fn watch(
    console: &Receiver<Vec<u8>>,
    check: &BootCheck,
    log: &BuildLog,
    now: &dyn Fn() -> Duration,
    cancel: &Cancel,
) -> io::Result<Ended> {
    let (began, limit) = (Instant::now(), check.within.to_std());
    let mut heard = Vec::new();
    loop {
        match console.recv_timeout(ATTENTION) {
            Ok(bytes) => {
                log.take(&bytes, now())?;
                heard.extend_from_slice(&bytes);
                if memmem::find(&heard, check.until.as_bytes()).is_some() {
                    return Ok(Ended::Ready);
                }
                // What is awaited may come in two pieces.
                heard.drain(..heard.len().saturating_sub(check.until.len()));
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(Ended::Off),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if cancel.is_stopped() {
            return Ok(Ended::Stopped);
        }
        if began.elapsed() > limit {
            return Ok(Ended::TooLate);
        }
    }
}
