//! Elf: what a loader reads of an object.
//!
//! Only headers, the dynamic section and the tables of symbol versions are read, each as a bounded range, so a program of
//! a gigabyte costs a few kilobytes. Whatever the bytes say, reading ends with an object or an error.
//!
//! Sources: System V ABI (gABI), chapters 4 and 5; LSB 5.0 Core, "Symbol Versioning".

use std::io::{self, Read, Seek, SeekFrom};

use goblin::container::Ctx;
use goblin::elf::dynamic::{
    DF_1_NODEFLIB, DT_FLAGS_1, DT_NEEDED, DT_RPATH, DT_RUNPATH, DT_SONAME, DT_STRTAB, DT_VERDEF,
    DT_VERDEFNUM, DT_VERNEED, DT_VERNEEDNUM,
};
use goblin::elf::program_header::{PT_DYNAMIC, PT_INTERP, PT_LOAD};
use goblin::elf::section_header::{SHT_GNU_VERDEF, SHT_GNU_VERNEED, SHT_PROGBITS, SectionHeader};
use goblin::elf::symver::{VerdefSection, VerneedSection};
use goblin::elf::{Dynamic, Elf, ProgramHeader, header};

/// How every object begins.
pub(crate) const MAGIC: &[u8] = b"\x7fELF";

/// A program or a library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Object {
    /// What it runs on.
    pub(crate) machine: Machine,
    /// The loader that the kernel starts for it; static programs and most libraries have none.
    pub(crate) interpreter: Option<Vec<u8>>,
    /// The libraries that it names, in their order.
    pub(crate) needed: Vec<Vec<u8>>,
    /// Its own name.
    pub(crate) soname: Option<Vec<u8>>,
    /// Where its libraries and those of its libraries are looked for: `DT_RPATH`.
    pub(crate) rpath: Vec<Vec<u8>>,
    /// Where its libraries are looked for: `DT_RUNPATH`; if there is one, `DT_RPATH` means nothing.
    pub(crate) runpath: Option<Vec<Vec<u8>>>,
    /// Whether its libraries are not looked for in the usual directories.
    pub(crate) no_default_directories: bool,
    /// The versions of symbols that it needs.
    pub(crate) versions: Vec<NeededVersion>,
    /// The versions of symbols that it defines.
    pub(crate) defines: Vec<String>,
}

/// A version that an object needs of a library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NeededVersion {
    /// The library, as the object calls it.
    pub(crate) library: Vec<u8>,
    /// Such as `GLIBC_2.34`.
    pub(crate) version: String,
    /// Whether it runs without.
    pub(crate) weak: bool,
}

/// What an object runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Machine {
    number: u16,
    is_64: bool,
    little_endian: bool,
}

impl Machine {
    /// The machine of a platform, by the architecture's name in the OCI image specification (the values of `GOARCH`).
    pub(crate) fn of(architecture: &str) -> Option<Self> {
        let (number, is_64, little_endian) = match architecture {
            "amd64" => (header::EM_X86_64, true, true),
            "arm64" => (header::EM_AARCH64, true, true),
            "386" => (header::EM_386, false, true),
            "arm" => (header::EM_ARM, false, true),
            "riscv64" => (header::EM_RISCV, true, true),
            "ppc64le" => (header::EM_PPC64, true, true),
            "s390x" => (header::EM_S390, true, false),
            "loong64" => (header::EM_LOONGARCH, true, true),
            _ => return None,
        };
        Some(Self { number, is_64, little_endian })
    }

    /// The directories of Debian and its children are named so; also what `$PLATFORM` means is its first word.
    pub(crate) fn triplet(self) -> Option<&'static str> {
        Some(match self.number {
            header::EM_X86_64 => "x86_64-linux-gnu",
            header::EM_AARCH64 => "aarch64-linux-gnu",
            header::EM_386 => "i386-linux-gnu",
            header::EM_ARM => "arm-linux-gnueabihf",
            header::EM_RISCV => "riscv64-linux-gnu",
            header::EM_PPC64 => "powerpc64le-linux-gnu",
            header::EM_S390 => "s390x-linux-gnu",
            header::EM_LOONGARCH => "loongarch64-linux-gnu",
            _ => return None,
        })
    }

    /// For people.
    pub(crate) fn name(self) -> String {
        let known = self.triplet().and_then(|triplet| triplet.split('-').next());
        known.map_or_else(|| format!("machine {}", self.number), str::to_owned)
    }
}

/// Why an object could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ElfError {
    /// It is damaged, or none.
    #[error("{0}")]
    Broken(String),
    /// The disk failed.
    #[error("cannot read the object")]
    Read(#[source] io::Error),
}

/// No program has more of these (the linkers make a dozen).
const MOST_PROGRAM_HEADERS: u16 = 1024;
/// No object has more of these: compilers that give each function a section leave a few thousand.
const MOST_SECTION_HEADERS: u16 = 16 * 1024;
/// No more is read of a dynamic section or a version table, in bytes.
const LONGEST_TABLE: u64 = 256 * 1024;
/// No name is longer, in bytes: `PATH_MAX`, and room for a search path of several.
const LONGEST_NAME: u64 = 16 * 1024;
/// No object names more libraries and versions than this: the largest browsers have some hundred.
const MOST_NAMES: usize = 16 * 1024;
/// The names of an object are held in memory; so many bytes at most, together.
const NAMES_BYTES_MAX: usize = 1 << 20;

/// Reads an object of `size` bytes.
pub(crate) fn read(file: &mut (impl Read + Seek), size: u64) -> Result<Object, ElfError> {
    let mut bytes = Bytes { file, size };
    let head = bytes.up_to(0, 64)?;
    let header = Elf::parse_header(&head).map_err(|error| broken(&error))?;
    let context = context_of(&header)?;
    let programs = program_headers(&mut bytes, &header, context)?;
    let mut object = Object {
        machine: Machine {
            number: header.e_machine,
            is_64: context.is_big(),
            little_endian: context.is_little_endian(),
        },
        interpreter: None,
        needed: Vec::new(),
        soname: None,
        rpath: Vec::new(),
        runpath: None,
        no_default_directories: false,
        versions: Vec::new(),
        defines: Vec::new(),
    };
    if let Some(place) = programs.iter().find(|program| program.p_type == PT_INTERP) {
        let path = bytes.exactly(place.p_offset, place.p_filesz.min(LONGEST_NAME))?;
        object.interpreter = Some(until_nul(&path).to_vec());
    }
    if let Some(place) = programs.iter().find(|program| program.p_type == PT_DYNAMIC) {
        let dynamic = dynamic_section(&mut bytes, place, context)?;
        let (names_left, bytes_left) = (MOST_NAMES, NAMES_BYTES_MAX);
        Linked { bytes: &mut bytes, programs: &programs, dynamic, context, names_left, bytes_left }
            .read(&mut object)?;
    }
    Ok(object)
}

/// The contents of the sections with these names, of at most so many bytes each; what is longer is left out, and so is
/// what has the name of one before it.
pub(crate) fn sections<'n>(
    file: &mut (impl Read + Seek),
    size: u64,
    names: &[&'n str],
    most: u64,
) -> Result<Vec<(&'n str, Vec<u8>)>, ElfError> {
    let mut bytes = Bytes { file, size };
    let head = bytes.up_to(0, 64)?;
    let header = Elf::parse_header(&head).map_err(|error| broken(&error))?;
    let headers = section_headers(&mut bytes, &header, context_of(&header)?)?;
    let Some(texts) = headers.get(usize::from(header.e_shstrndx)) else { return Ok(Vec::new()) };
    let texts = bytes.exactly(texts.sh_offset, texts.sh_size.min(LONGEST_TABLE))?;
    let mut found: Vec<(&str, Vec<u8>)> = Vec::new();
    for section in headers.iter().filter(|section| section.sh_type == SHT_PROGBITS && section.sh_size <= most)
    {
        let name = until_nul(texts.get(section.sh_name..).unwrap_or_default());
        let wanted = names.iter().find(|wanted| wanted.as_bytes() == name);
        if let Some(name) = wanted.filter(|name| found.iter().all(|(known, _)| known != *name)) {
            found.push((*name, bytes.exactly(section.sh_offset, section.sh_size)?));
        }
    }
    Ok(found)
}

fn section_headers<F: Read + Seek>(
    bytes: &mut Bytes<'_, F>,
    header: &header::Header,
    context: Ctx,
) -> Result<Vec<SectionHeader>, ElfError> {
    let (count, each) = (header.e_shnum, SectionHeader::size(context));
    if count == 0 || header.e_shoff == 0 {
        return Ok(Vec::new());
    }
    if count > MOST_SECTION_HEADERS || usize::from(header.e_shentsize) != each {
        return Err(ElfError::Broken(format!("{count} section headers of {} bytes", header.e_shentsize)));
    }
    // At offset 0 the parser takes it that there is no table, so the table begins behind an empty place.
    let mut table = vec![0; each];
    table.extend(bytes.exactly(header.e_shoff, u64::from(count) * each as u64)?);
    SectionHeader::parse(&table, each, count.into(), context).map_err(|error| broken(&error))
}

fn context_of(header: &header::Header) -> Result<Ctx, ElfError> {
    Ok(Ctx::new(
        header.container().map_err(|error| broken(&error))?,
        header.endianness().map_err(|error| broken(&error))?,
    ))
}

fn program_headers<F: Read + Seek>(
    bytes: &mut Bytes<'_, F>,
    header: &header::Header,
    context: Ctx,
) -> Result<Vec<ProgramHeader>, ElfError> {
    let (count, each) = (header.e_phnum, ProgramHeader::size(context));
    if count == 0 {
        return Ok(Vec::new());
    }
    if count > MOST_PROGRAM_HEADERS || usize::from(header.e_phentsize) != each {
        return Err(ElfError::Broken(format!("{count} program headers of {} bytes", header.e_phentsize)));
    }
    let table = bytes.exactly(header.e_phoff, u64::from(count) * each as u64)?;
    ProgramHeader::parse(&table, 0, count.into(), context).map_err(|error| broken(&error))
}

fn dynamic_section<F: Read + Seek>(
    bytes: &mut Bytes<'_, F>,
    place: &ProgramHeader,
    context: Ctx,
) -> Result<Dynamic, ElfError> {
    let table = bytes.exactly(place.p_offset, place.p_filesz.min(LONGEST_TABLE))?;
    let alone = ProgramHeader { p_offset: 0, p_filesz: table.len() as u64, ..place.clone() };
    let parsed = Dynamic::parse(&table, &[alone], context).map_err(|error| broken(&error))?;
    parsed.ok_or_else(|| ElfError::Broken("no dynamic section".to_owned()))
}

/// An object that is linked when it is loaded.
struct Linked<'a, 'b, F> {
    bytes: &'a mut Bytes<'b, F>,
    programs: &'a [ProgramHeader],
    dynamic: Dynamic,
    context: Ctx,
    /// How many names may still be read, and how long they may be together. Tables of a few bytes can name the same text
    /// again and again.
    names_left: usize,
    bytes_left: usize,
}

impl<F: Read + Seek> Linked<'_, '_, F> {
    fn read(mut self, object: &mut Object) -> Result<(), ElfError> {
        for (tag, value) in self.entries() {
            match tag {
                DT_NEEDED => object.needed.push(self.name(value)?),
                DT_SONAME => object.soname = Some(self.name(value)?),
                DT_RPATH => object.rpath = directories(&self.name(value)?),
                DT_RUNPATH => object.runpath = Some(directories(&self.name(value)?)),
                DT_FLAGS_1 => object.no_default_directories = value & DF_1_NODEFLIB != 0,
                _ => {}
            }
        }
        object.versions = self.needed_versions()?;
        object.defines = self.defined_versions()?;
        Ok(())
    }

    fn entries(&self) -> Vec<(u64, u64)> {
        self.dynamic.dyns.iter().map(|entry| (entry.d_tag, entry.d_val)).collect()
    }

    fn value(&self, tag: u64) -> Option<u64> {
        self.dynamic.dyns.iter().find(|entry| entry.d_tag == tag).map(|entry| entry.d_val)
    }

    /// A text of the dynamic string table.
    fn name(&mut self, at: u64) -> Result<Vec<u8>, ElfError> {
        let table = self.value(DT_STRTAB).and_then(|address| self.offset(address));
        let place = table.and_then(|table| table.checked_add(at));
        let place = place.ok_or_else(|| ElfError::Broken("no dynamic string table".to_owned()))?;
        let text = self.bytes.up_to(place, LONGEST_NAME)?;
        if !text.contains(&0) {
            return Err(ElfError::Broken(format!("a name at byte {place} that does not end")));
        }
        let name = until_nul(&text).to_vec();
        let left = (self.names_left.checked_sub(1), self.bytes_left.checked_sub(name.len()));
        let (Some(names_left), Some(bytes_left)) = left else {
            return Err(ElfError::Broken(format!(
                "more than {MOST_NAMES} names, or more than {NAMES_BYTES_MAX} bytes of them"
            )));
        };
        (self.names_left, self.bytes_left) = (names_left, bytes_left);
        Ok(name)
    }

    fn needed_versions(&mut self) -> Result<Vec<NeededVersion>, ElfError> {
        let Some((table, place)) = self.table(DT_VERNEED, DT_VERNEEDNUM, SHT_GNU_VERNEED)? else {
            return Ok(Vec::new());
        };
        let section =
            VerneedSection::parse(&table, &[place], self.context).map_err(|error| broken(&error))?;
        let mut found = Vec::new();
        for library in section.iter().flat_map(VerneedSection::iter) {
            let name = self.name(library.vn_file as u64)?;
            for need in library.iter() {
                let version = String::from_utf8_lossy(&self.name(need.vna_name as u64)?).into_owned();
                found.push(NeededVersion {
                    library: name.clone(),
                    version,
                    weak: need.vna_flags & VER_FLG_WEAK != 0,
                });
            }
        }
        Ok(found)
    }

    fn defined_versions(&mut self) -> Result<Vec<String>, ElfError> {
        let Some((table, place)) = self.table(DT_VERDEF, DT_VERDEFNUM, SHT_GNU_VERDEF)? else {
            return Ok(Vec::new());
        };
        let section = VerdefSection::parse(&table, &[place], self.context).map_err(|error| broken(&error))?;
        let mut found = Vec::new();
        for definition in section.iter().flat_map(VerdefSection::iter) {
            // The first name is the version's own, the others are those that it follows.
            if let Some(name) = definition.iter().next() {
                found.push(String::from_utf8_lossy(&self.name(name.vda_name as u64)?).into_owned());
            }
        }
        Ok(found)
    }

    /// A table of versions, and a section header that says where in it: stripped objects may have none.
    fn table(
        &mut self,
        place: u64,
        count: u64,
        kind: u32,
    ) -> Result<Option<(Vec<u8>, SectionHeader)>, ElfError> {
        let (Some(address), Some(count)) = (self.value(place), self.value(count)) else { return Ok(None) };
        let outside = || ElfError::Broken(format!("a version table at address {address:#x}, outside"));
        let offset = self.offset(address).ok_or_else(outside)?;
        let table = self.bytes.up_to(offset, LONGEST_TABLE)?;
        let header = SectionHeader {
            sh_type: kind,
            sh_offset: 0,
            sh_size: table.len() as u64,
            sh_info: u32::try_from(count).map_err(|_| outside())?,
            ..SectionHeader::default()
        };
        Ok(Some((table, header)))
    }

    /// Where in the file an address is.
    fn offset(&self, address: u64) -> Option<u64> {
        let mut loaded = self.programs.iter().filter(|program| program.p_type == PT_LOAD);
        loaded.find_map(|program| {
            let within = address.checked_sub(program.p_vaddr)?;
            (within < program.p_filesz).then(|| program.p_offset.checked_add(within))?
        })
    }
}

/// The loader does without a version that is marked so (glibc, elf.h).
const VER_FLG_WEAK: u16 = 2;

/// A file of which ranges are read.
struct Bytes<'a, F> {
    file: &'a mut F,
    size: u64,
}

impl<F: Read + Seek> Bytes<'_, F> {
    fn exactly(&mut self, offset: u64, length: u64) -> Result<Vec<u8>, ElfError> {
        if offset.checked_add(length).is_none_or(|end| end > self.size) {
            return Err(ElfError::Broken(format!("it ends before {length} bytes at byte {offset}")));
        }
        self.up_to(offset, length)
    }

    fn up_to(&mut self, offset: u64, length: u64) -> Result<Vec<u8>, ElfError> {
        if offset >= self.size {
            return Err(ElfError::Broken(format!("it ends before byte {offset}")));
        }
        let mut bytes = Vec::new();
        self.file.seek(SeekFrom::Start(offset)).map_err(ElfError::Read)?;
        self.file.take(length).read_to_end(&mut bytes).map_err(ElfError::Read)?;
        Ok(bytes)
    }
}

fn broken(error: &goblin::error::Error) -> ElfError {
    ElfError::Broken(error.to_string())
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn directories(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|byte| *byte == b':').filter(|dir| !dir.is_empty()).map(<[u8]>::to_vec).collect()
}
