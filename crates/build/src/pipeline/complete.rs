//! Complete: whether what was packaged has inside what it needs, by the rules of its closure and by running it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use semel_model::digest::Digest;
use semel_model::pipeline::EvidenceResult;
use semel_model::project::Kind;
use semel_model::statement::Claim;
use serde_json::{Value, json};

use super::{BuildError, BuildRequest, Progress, listener};
use crate::base::Base;
use crate::boot::{self, BootRequest};
use crate::check::compare::blob_path;
use crate::closure::smoke::{self, SmokeRequest};
use crate::closure::{self, Question, Smoked};
use crate::collect::{PackFile, PackKind};
use crate::disk;
use crate::log::{Bounds, BuildLog};
use crate::package::PackageError;
use crate::recipe::{Cancel, RunError};
use crate::rootfs::Rootfs;

/// What smoke commands print is short; more is not kept of it.
const SMOKE_BOUNDS: Bounds = Bounds { head_bytes: 1 << 20, tail_bytes: 1 << 20 };

/// The artefact when it is packaged.
pub(super) struct Finished<'a> {
    pub(super) request: &'a BuildRequest,
    pub(super) files: &'a [PackFile],
    pub(super) base: Option<&'a Base>,
    pub(super) config: &'a Digest,
    /// The length of the layers that were made here, in bytes.
    pub(super) packed_bytes: u64,
}

/// How the artefact is started, as its configuration has it.
struct Execution {
    start: Vec<String>,
    environment: Vec<String>,
    workdir: Option<String>,
}

impl Finished<'_> {
    /// What is inside.
    pub(super) fn rootfs(&self) -> Rootfs {
        Rootfs::new(self.files, self.base.map(|base| Rootfs::clone(&base.rootfs)))
    }

    /// Looks at it; the commands before took so long. One that is not complete is an error: nothing of it is published.
    pub(super) fn check(
        &self,
        rootfs: &Rootfs,
        before: Duration,
        progress: &Arc<dyn Progress>,
        cancel: &Cancel,
    ) -> Result<closure::Report, BuildError> {
        if self.request.source.project.definition.artefact.kind == Kind::Vm {
            return self.check_disk(before, progress, cancel);
        }
        let execution = self.execution()?;
        let report = closure::check(&self.question(rootfs, &execution))?;
        if !report.is_complete() {
            return Err(BuildError::Incomplete(Box::new(report)));
        }
        let smoke = self.smoke(rootfs, &execution, before, progress, cancel)?;
        Ok(closure::Report { smoke, ..report })
    }

    /// What a base says about starting counts, too, so the configuration that was packaged is read.
    fn execution(&self) -> Result<Execution, BuildError> {
        let artefact = &self.request.source.project.definition.artefact;
        if artefact.kind != Kind::Image {
            return Ok(Execution {
                start: artefact.entrypoint.clone(),
                environment: Vec::new(),
                workdir: None,
            });
        }
        let path = blob_path(&self.request.layout_dir(), self.config);
        let unread = |source| BuildError::Work { dir: path.clone(), source };
        let config: Value = serde_json::from_slice(&std::fs::read(&path).map_err(unread)?)
            .map_err(|error| unread(io::Error::other(error)))?;
        let words = |key: &str| {
            let listed = config.pointer(&format!("/config/{key}")).and_then(Value::as_array);
            listed.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned)
        };
        Ok(Execution {
            start: words("Entrypoint").chain(words("Cmd")).collect(),
            environment: words("Env").collect(),
            workdir: config.pointer("/config/WorkingDir").and_then(Value::as_str).map(str::to_owned),
        })
    }

    fn question<'a>(&'a self, rootfs: &'a Rootfs, execution: &'a Execution) -> Question<'a> {
        let artefact = &self.request.source.project.definition.artefact;
        Question {
            rootfs,
            kind: artefact.kind,
            platform: &self.request.platform,
            start: &execution.start,
            environment: &execution.environment,
            needs: &artefact.needs,
            smoke: &artefact.smoke,
            closure: &artefact.closure,
            runtime: artefact.runtime(),
            handler: artefact.handler.as_deref(),
            packed_bytes: self.packed_bytes,
        }
    }

    /// Runs the project's smoke commands inside.
    fn smoke(
        &self,
        rootfs: &Rootfs,
        execution: &Execution,
        before: Duration,
        progress: &Arc<dyn Progress>,
        cancel: &Cancel,
    ) -> Result<Vec<Smoked>, BuildError> {
        let artefact = &self.request.source.project.definition.artefact;
        let request = SmokeRequest {
            rootfs,
            kind: artefact.kind,
            platform: &self.request.platform,
            commands: &artefact.smoke,
            environment: &execution.environment,
            workdir: execution.workdir.as_deref(),
            host_path: self.host_path(),
            semel: &self.request.semel,
            scratch: &self.request.work.join("smoke"),
            before,
        };
        self.logged(before, progress, |log| smoke::run(&request, log, cancel))
    }

    /// A disk is a whole system: nobody looks for what it lacks, but it can be started.
    fn check_disk(
        &self,
        before: Duration,
        progress: &Arc<dyn Progress>,
        cancel: &Cancel,
    ) -> Result<closure::Report, BuildError> {
        let artefact = &self.request.source.project.definition.artefact;
        let report = closure::Report::empty(&self.request.platform);
        let from = self.files.iter().find_map(|file| match &file.kind {
            PackKind::File { from, .. } => Some(from),
            PackKind::Dir | PackKind::Symlink { .. } => None,
        });
        let Some(image) = from else { return Ok(report) };
        let unread = |source| PackageError::Read { path: image.to_path_buf(), source };
        let invalid = |source| PackageError::Disk { path: image.display().to_string(), source };
        if !disk::is_in_order(image).map_err(unread)?.map_err(invalid)? {
            progress.note(
                "the clusters of the disk image are not in the order of the disk, so the same content may give other \
                 bytes another time: qemu-img convert -O qcow2, without -W",
            );
        }
        let request = BootRequest {
            image,
            disk: artefact.disk.as_ref(),
            platform: &self.request.platform,
            commands: &artefact.smoke,
            host_path: self.host_path(),
            semel: &self.request.semel,
            scratch: &self.request.work.join("overlay"),
            before,
        };
        let smoke = self.logged(before, progress, |log| boot::run(&request, log, cancel))?;
        Ok(closure::Report { smoke, ..report })
    }

    /// Runs the smoke commands, if there are some, with what they print behind that of the commands before.
    fn logged<E>(
        &self,
        before: Duration,
        progress: &Arc<dyn Progress>,
        run: impl FnOnce(&BuildLog) -> Result<Vec<Smoked>, E>,
    ) -> Result<Vec<Smoked>, BuildError>
    where
        BuildError: From<E>,
    {
        if self.request.source.project.definition.artefact.smoke.is_empty() {
            return Ok(Vec::new());
        }
        let path = self.request.log();
        let unlogged = |source| RunError::Log { log: path.clone(), source };
        let log = BuildLog::resume(&path, &[], SMOKE_BOUNDS, listener(progress)).map_err(unlogged)?;
        let ran = run(&log);
        // Also the log of a build that failed is complete.
        log.end(before).map_err(unlogged)?;
        let ran = ran?;
        for (command, reason) in ran.iter().filter_map(|one| Some((&one.command, one.reason.as_ref()?))) {
            progress.note(&format!("smoke `{command}` was not run: {reason}"));
        }
        Ok(ran)
    }

    /// The directories in which programs of this machine are looked for.
    fn host_path(&self) -> &str {
        self.request.host.variables.get("PATH").map(String::as_str).unwrap_or_default()
    }
}

/// What the builder says of an artefact that is complete.
pub(super) fn claim(report: &closure::Report) -> Claim {
    Claim {
        predicate_type: closure::PREDICATE_TYPE.to_owned(),
        predicate: json!(report),
        result: EvidenceResult::Pass,
    }
}
