//! Serverless runtimes: what the platform that starts a zip brings with it, and what it takes.
//!
//! Source: AWS Lambda Developer Guide, "Lambda runtimes" and "Lambda quotas"; the C libraries are those of Amazon Linux 2
//! and Amazon Linux 2023.

/// What starts the code of a zip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Runtime {
    /// The platform's own word: `python3.12`.
    pub name: &'static str,
    /// What it is written in.
    pub language: Language,
    /// The system below.
    pub system: System,
}

/// The languages that handlers are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// Python, with its major and minor version.
    Python(u32, u32),
    /// Node.js.
    Node,
    /// Java.
    Java,
    /// .NET.
    DotNet,
    /// Ruby.
    Ruby,
    /// None: the zip brings an executable `bootstrap`.
    Provided,
}

/// The systems of runtimes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum System {
    /// Amazon Linux 2.
    Al2,
    /// Amazon Linux 2023.
    Al2023,
}

/// How many bytes a zip may have when it is unpacked, layers included.
pub const UNPACKED_BYTES_MAX: u64 = 250 * 1024 * 1024;
/// How many bytes a zip may have that is uploaded directly; a larger one goes through an object store.
pub const DIRECT_BYTES_MAX: u64 = 50 * 1024 * 1024;
/// What zips run on.
pub const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];
/// The Python distributions that come with a Python runtime.
pub const PYTHON_BRINGS: [&str; 7] =
    ["boto3", "botocore", "jmespath", "python-dateutil", "s3transfer", "six", "urllib3"];

/// The libraries that both systems have beside those of every host; wheels for manylinux count on this one (PEP 600).
pub const SYSTEM_LIBRARIES: [&str; 1] = ["libz.so.1"];

const RUNTIMES: [Runtime; 24] = [
    Runtime { name: "dotnet8", language: Language::DotNet, system: System::Al2023 },
    Runtime { name: "dotnet10", language: Language::DotNet, system: System::Al2023 },
    Runtime { name: "java8.al2", language: Language::Java, system: System::Al2 },
    Runtime { name: "java11", language: Language::Java, system: System::Al2 },
    Runtime { name: "java17", language: Language::Java, system: System::Al2 },
    Runtime { name: "java21", language: Language::Java, system: System::Al2023 },
    Runtime { name: "java25", language: Language::Java, system: System::Al2023 },
    Runtime { name: "nodejs18.x", language: Language::Node, system: System::Al2 },
    Runtime { name: "nodejs20.x", language: Language::Node, system: System::Al2023 },
    Runtime { name: "nodejs22.x", language: Language::Node, system: System::Al2023 },
    Runtime { name: "nodejs24.x", language: Language::Node, system: System::Al2023 },
    Runtime { name: "provided.al2", language: Language::Provided, system: System::Al2 },
    Runtime { name: "provided.al2023", language: Language::Provided, system: System::Al2023 },
    Runtime { name: "python3.8", language: Language::Python(3, 8), system: System::Al2 },
    Runtime { name: "python3.9", language: Language::Python(3, 9), system: System::Al2 },
    Runtime { name: "python3.10", language: Language::Python(3, 10), system: System::Al2 },
    Runtime { name: "python3.11", language: Language::Python(3, 11), system: System::Al2 },
    Runtime { name: "python3.12", language: Language::Python(3, 12), system: System::Al2023 },
    Runtime { name: "python3.13", language: Language::Python(3, 13), system: System::Al2023 },
    Runtime { name: "python3.14", language: Language::Python(3, 14), system: System::Al2023 },
    Runtime { name: "ruby2.7", language: Language::Ruby, system: System::Al2 },
    Runtime { name: "ruby3.2", language: Language::Ruby, system: System::Al2 },
    Runtime { name: "ruby3.3", language: Language::Ruby, system: System::Al2023 },
    Runtime { name: "ruby3.4", language: Language::Ruby, system: System::Al2023 },
];

impl Runtime {
    /// The runtime that a project file names: `python3.12`, or with its system, `python3.12/al2023`.
    pub fn find(text: &str) -> Option<&'static Self> {
        let (name, system) = match text.split_once('/') {
            Some((name, system)) => (name, Some(system)),
            None => (text, None),
        };
        let known = RUNTIMES.iter().find(|runtime| runtime.name == name)?;
        system.is_none_or(|system| system == known.system.as_str()).then_some(known)
    }

    /// The names of all, as a project file has them.
    pub fn names() -> impl Iterator<Item = &'static str> {
        RUNTIMES.iter().map(|runtime| runtime.name)
    }

    /// Whether it calls a function that the project names.
    pub fn has_handler(&self) -> bool {
        self.language != Language::Provided
    }
}

impl System {
    /// The word in project files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Al2 => "al2",
            Self::Al2023 => "al2023",
        }
    }

    /// The newest version of the GNU C library that it has, major and minor.
    pub fn glibc(self) -> (u32, u32) {
        match self {
            Self::Al2 => (2, 26),
            Self::Al2023 => (2, 34),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_is_found_by_its_name_and_by_no_other_system_than_its_own() {
        for (text, glibc) in [
            ("python3.12/al2023", Some((2, 34))),
            ("python3.12", Some((2, 34))),
            ("python3.11/al2", Some((2, 26))),
            ("provided.al2023", Some((2, 34))),
            ("python3.12/al2", None),
            ("python3.12/", None),
            ("python", None),
        ] {
            assert_eq!(Runtime::find(text).map(|runtime| runtime.system.glibc()), glibc, "{text}");
        }
    }
}
