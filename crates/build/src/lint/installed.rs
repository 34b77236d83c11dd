//! Installed: which files came with Python distributions, by the lists of these, wherever they were installed.
//!
//! `pip install --target lib` makes no `site-packages` whose name would tell. Source: PyPA, "Recording installed projects",
//! "The RECORD file".

use std::collections::BTreeSet;

use super::finding::Finding;

/// So many files are listed at most; what is behind them counts as the project's own.
const FILES_MAX: usize = 1_000_000;

/// The places of all distributions.
#[derive(Debug, Default)]
pub(super) struct Installed {
    /// Directories with files of a distribution, with a slash behind, and files that lie beside the distributions.
    places: BTreeSet<String>,
    files: usize,
}

impl Installed {
    /// Reads a file, if it is the list of a distribution: a path relative to the directory above, a hash, a size.
    pub(super) fn read(&mut self, path: &str, bytes: &[u8]) {
        let info = path.strip_suffix("/RECORD").filter(|info| info.ends_with(".dist-info"));
        let Some((top, _)) = info.and_then(|info| info.rsplit_once('/')) else { return };
        for line in String::from_utf8_lossy(bytes).lines() {
            let file = line.rsplitn(3, ',').last().unwrap_or(line).trim_matches('"');
            self.files += 1;
            if self.files > FILES_MAX || file.starts_with('/') || file.split('/').any(|part| part == "..") {
                continue;
            }
            self.places.insert(match file.rsplit_once('/') {
                Some((dir, _)) => format!("{top}/{dir}/"),
                None => format!("{top}/{file}"),
            });
        }
    }

    /// Findings, those in distributions as far as they count in what other people wrote.
    pub(super) fn judge(&self, findings: Vec<Finding>) -> Vec<Finding> {
        let judged = findings.into_iter().filter_map(|finding| match self.has(&finding.path) {
            true => finding.in_example(),
            false => Some(finding),
        });
        judged.collect()
    }

    /// What Python compiled lies one directory below.
    fn has(&self, path: &str) -> bool {
        let dir = path.rfind('/').map_or("", |at| &path[..=at]);
        self.places.contains(path) || self.places.contains(dir.strip_suffix("__pycache__/").unwrap_or(dir))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_has_what_it_lists_and_nothing_beside_it() {
        let mut installed = Installed::default();
        let record = "kombu/__init__.py,sha256=x,1\nkombu/transport/azure.py,sha256=x,2\nsix.py,,\n../../bin/celery,,\n\"odd,name/a.py\",,\n/etc/x/y,,\n";
        installed.read("/app/lib/kombu-5.3.dist-info/RECORD", record.as_bytes());
        installed.read("/app/RECORD", b"own/a.py,,\n");
        for (path, has) in [
            ("/app/lib/kombu/transport/azure.py", true),
            ("/app/lib/kombu/transport/__pycache__/azure.cpython-311.pyc", true),
            ("/app/lib/six.py", true),
            ("/app/lib/odd,name/a.py", true),
            ("/app/lib/own.py", false),
            ("/app/lib/kombu/own/a.py", false),
            ("/app/kombu/transport/azure.py", false),
            ("/app/own/a.py", false),
            ("/bin/celery", false),
            ("/etc/x/y", false),
        ] {
            assert_eq!(installed.has(path), has, "{path}");
        }
    }
}
