//! What the help of a verb says below its words: what is promised, how it ends, examples. Lines are as long as the terminal lets
//! them be.

/// Below the list of the verbs.
pub(crate) const VERBS: &str = "\
First steps:
  semel demo       see the whole path on a small project
  semel init       write a semel.toml for the project here
  semel build      turn its newest commit into an artefact, once

Less often: doctor, lock, import, evidence, finalise, hold, reject, accept, deprecate, stop, publish, component, \
move-home, gc, scrub, backup, restore, recover, rebuild, sample, completions, man (semel help VERB explains each)";

/// `semel push`
pub(crate) const PUSH: &str = "\
Files are stored byte for byte. What they are is seen from them: .zip, a disk image (.qcow2, .raw, .img), a Helm chart \
(.tgz), a directory (kind archive); everything else is kind file.

What the store has already is not sent again. After a broken connection it goes on where it was; after a broken-off \
command, run it again.";

/// `semel import`
pub(crate) const IMPORT: &str = "\
What something else built from a commit becomes that commit's artefact, with a version and a build number. Images of OCI \
layouts and archives keep their digest. docker save keeps none, so its images get a new one. Of a commit that no \
repository here has, nothing is known but its name and --branch.

A commit has one artefact: the same one again changes nothing, another one is refused (exit 5) without --again. While \
somebody else imports for the same commit, it ends with exit 75.

Examples:
  semel import oci-archive:image.tar --commit $(git rev-parse HEAD)
  semel import zip:handler.zip --commit $CI_COMMIT_SHA -c shop/handler --branch release/1.4";

/// `semel build`
pub(crate) const BUILD: &str = "\
A commit is built once: who asks again, or while somebody else is building, gets the same artefact. A build that was \
broken off or failed is repeated under the same version.

--again builds an unchanged source once more, because something outside it has changed (a compiler, a package mirror). \
The old artefact stays; from now on the new one answers. Run again with the same reason, it takes what was made for it: \
another reason makes one more.

--check builds what is published once more, changes nothing and records what came out. Exit codes: 8 not the same, \
7 the linter or the dependencies say no, 10 a command of the project failed, 75 somebody else is building (--no-wait).

Examples:
  semel build
  semel build --platform all
  semel build --again --reason \"rebuilt with openssl 3.0.16\"
  semel build --check 1.4.2";

/// `semel version`
pub(crate) const VERSION: &str = "\
Nothing is given and nothing is recorded: the next build may get another version, if somebody else builds before it.

Examples:
  semel version --explain
  semel version feat/refunds --branch feat/refunds";

/// `semel lint`
pub(crate) const LINT: &str = "\
Exit code 1 says that there are errors. No finding repeats a value. docs/lint.md has the rules, and how a finding is \
waived.

Examples:
  semel lint                # this directory
  semel lint dist/app.js
  semel lint 1.4.2          # every layer, beside what its build found";

/// `semel lock`
pub(crate) const LOCK: &str = "\
Without --update-base nothing is changed. With it, one value of semel.toml is: [artefact] base.

Examples:
  semel lock
  semel lock --update-base
  semel lock --update-base docker.io/library/debian:12";

/// `semel source`
pub(crate) const SOURCE: &str = "\
It comes from the store, so it is there when the repository is not. Nothing that is there already is overwritten.

Examples:
  semel source 1.4.2
  semel source shop/api@production -o api.tar.gz
  semel source 1.4.2 -o - | tar -tv";

/// `semel evidence`
pub(crate) const EVIDENCE: &str = "\
What is printed has a signature that verifies under a key of this store; else exit 7.

Examples:
  semel evidence 1.4.2
  semel evidence 1.4.2 provenance
  semel evidence 1.4.2 sbom --raw > sbom.dsse.json";

/// `semel finalise`
pub(crate) const FINALISE: &str = "\
For components of the scheme `candidate`. The same again changes nothing; a name that means other bytes already is refused \
(exit 5).

Example:
  semel finalise 1.4.0-rc.3";

/// `semel diff`
pub(crate) const DIFF: &str = "\
Exit code 1 says that there is a difference. Values of secrets are never shown. Artefacts for several platforms are \
compared part by part.

Examples:
  semel diff 1.4.1 1.4.2
  semel diff staging production";

/// `semel doctor`
pub(crate) const DOCTOR: &str = "\
It changes nothing and makes no store. Exit code 1 says that something that is needed, or configured, does not work.";

/// `semel move-home`
pub(crate) const MOVE_HOME: &str = "\
The other store learns every build number and every name, so that none of them is given twice, and goes on from there; \
this one keeps what it has and gives nothing more. A move that was broken off is completed by the same command; until then \
neither store gives versions. Bytes, evidence and deployments stay here: pull and push copy artefacts as before.

Where no store is in DIR, a new one is made, which is said. SEMEL_DATABASE is this store's: another one whose tables are in \
PostgreSQL is named by the URL of its server.

Example:
  semel move-home shop/api --to https://semel.example";

/// `semel pull`
pub(crate) const PULL: &str = "\
An archive is unpacked into the directory, other files are written under their names; an image is taken out as oci:DIR or \
oci-archive:FILE. Nothing that is something else is overwritten without --force. A broken-off pull is completed by the \
same command; until then its bytes lie in hidden files beside the target.";
