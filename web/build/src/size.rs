//! What the package weighs: bytes as they are and compressed, and what takes them in the WASM module.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write as _;
use std::path::Path;

use serde::Serialize;
use wasmparser::{BinaryReaderError, KnownCustom, Name, Parser, Payload};

/// The largest module that is allowed, in bytes after brotli.
pub const LARGEST_MODULE: u64 = 3_000_000;

/// Bytes of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Size {
    /// As it is.
    pub raw: u64,
    /// After gzip, level 9.
    pub gzip: u64,
    /// After brotli, quality 11: what a static host sends.
    pub brotli: u64,
}

impl Size {
    /// Compresses the bytes of a file.
    ///
    /// # Panics
    /// Not by any bytes: writing to memory does not fail.
    pub fn of(bytes: &[u8]) -> Self {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(bytes).expect("memory");
        let mut brotli = brotli::CompressorWriter::new(Vec::new(), 1 << 16, 11, 22);
        brotli.write_all(bytes).expect("memory");
        Self {
            raw: bytes.len() as u64,
            gzip: gzip.finish().expect("memory").len() as u64,
            brotli: brotli.into_inner().len() as u64,
        }
    }
}

/// A name and its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// Of a section, a crate, a function, a data segment.
    pub name: String,
    /// Before compression.
    pub bytes: u64,
}

/// What takes the bytes of a module, the largest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Breakdown {
    /// Sections.
    pub sections: Vec<Part>,
    /// Bodies of functions by the crate that wrote them, or that a generic function of the standard library was
    /// compiled for. What the optimiser inlined counts for the caller.
    pub crates: Vec<Part>,
    /// The largest functions.
    pub functions: Vec<Part>,
    /// Segments of data: constants, tables, embedded text.
    pub data: Vec<Part>,
}

/// How many functions and segments are listed.
const LISTED: usize = 20;

impl Breakdown {
    /// Reads a module; without its name section, functions have no crate.
    ///
    /// # Errors
    /// Bytes that are no WASM module.
    pub fn of(module: &[u8]) -> Result<Self, BinaryReaderError> {
        let mut sections: BTreeMap<String, u64> = BTreeMap::new();
        let (mut imported, mut bodies) = (0, Vec::new());
        let (mut data, mut function_names, mut data_names) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        for payload in Parser::new(0).parse_all(module) {
            let payload = payload?;
            if let Some((id, range)) = payload.as_section() {
                let name = match &payload {
                    Payload::CustomSection(custom) => format!("custom {}", custom.name()),
                    _ => section_name(id).to_owned(),
                };
                *sections.entry(name).or_default() += range.len() as u64;
            }
            match payload {
                Payload::ImportSection(imports) => {
                    for import in imports.into_imports() {
                        imported += u32::from(matches!(import?.ty, wasmparser::TypeRef::Func(_)));
                    }
                }
                Payload::CodeSectionEntry(body) => bodies.push(body.range().len() as u64),
                Payload::DataSection(segments) => {
                    for segment in segments {
                        data.push(segment?.data.len() as u64);
                    }
                }
                Payload::CustomSection(custom) => {
                    if let KnownCustom::Name(names) = custom.as_known() {
                        for name in names {
                            match name? {
                                Name::Function(map) => read_names(map, &mut function_names)?,
                                Name::Data(map) => read_names(map, &mut data_names)?,
                                _ => {}
                            }
                        }
                    }
                }
                _ => {}
            }
        }
        let mut crates: BTreeMap<String, u64> = BTreeMap::new();
        let mut functions = Vec::new();
        for (index, bytes) in (imported..).zip(bodies) {
            let name = function_names.get(&index).copied().unwrap_or_default();
            let name = without_hash(&format!("{:#}", rustc_demangle::demangle(name))).to_owned();
            *crates.entry(crate_of(&name).to_owned()).or_default() += bytes;
            functions.push(Part { name, bytes });
        }
        let data = (0..).zip(data).map(|(i, bytes)| {
            let name = data_names.get(&i).map_or_else(|| format!("segment {i}"), |&name| name.to_owned());
            Part { name, bytes }
        });
        let parts = |map: BTreeMap<String, u64>| {
            largest(map.into_iter().map(|(name, bytes)| Part { name, bytes }).collect(), usize::MAX)
        };
        Ok(Self {
            sections: parts(sections),
            crates: parts(crates),
            functions: largest(functions, LISTED),
            data: largest(data.collect(), LISTED),
        })
    }
}

fn read_names<'a>(
    map: wasmparser::NameMap<'a>,
    into: &mut BTreeMap<u32, &'a str>,
) -> Result<(), BinaryReaderError> {
    for naming in map {
        let naming = naming?;
        into.insert(naming.index, naming.name);
    }
    Ok(())
}

fn largest(mut parts: Vec<Part>, most: usize) -> Vec<Part> {
    parts.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
    parts.truncate(most);
    parts
}

fn section_name(id: u8) -> &'static str {
    const NAMES: [&str; 14] = [
        "custom",
        "types",
        "imports",
        "functions",
        "tables",
        "memory",
        "globals",
        "exports",
        "start",
        "elements",
        "code",
        "data",
        "data count",
        "tags",
    ];
    NAMES.get(usize::from(id)).copied().unwrap_or("unknown")
}

/// Crates whose functions are compiled for others.
const STANDARD: [&str; 6] = ["core", "alloc", "std", "hashbrown", "compiler_builtins", "dlmalloc"];

/// The crate of a demangled function: the first one named that is not of the standard library.
fn crate_of(function: &str) -> &str {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut standard = false;
    let mut before = ' ';
    let mut rest = function;
    while let Some(at) = rest.find(is_word) {
        before = rest[..at].chars().next_back().unwrap_or(before);
        let word = &rest[at..];
        let end = word.find(|c| !is_word(c)).unwrap_or(word.len());
        let (word, tail) = word.split_at(end);
        // A path starts with a crate: `<a::B as c::D>::e` has two.
        if tail.starts_with("::") && before != ':' {
            if !STANDARD.contains(&word) {
                return word;
            }
            standard = true;
        }
        before = word.chars().next_back().unwrap_or(before);
        rest = tail;
    }
    if standard { "standard library" } else { "without a crate" }
}

/// A function without the hash that tells it from others of its name: wasm-bindgen demangles, and leaves it.
fn without_hash(function: &str) -> &str {
    match function.rsplit_once("::h") {
        Some((name, hash)) if hash.len() == 16 && hash.bytes().all(|c| c.is_ascii_hexdigit()) => name,
        _ => function,
    }
}

/// A module without its custom sections: names and the like are for tools, not for browsers.
///
/// # Errors
/// Bytes that are no WASM module.
pub fn without_custom_sections(module: &[u8]) -> Result<Vec<u8>, BinaryReaderError> {
    let mut out = Vec::with_capacity(module.len());
    for payload in Parser::new(0).parse_all(module) {
        let payload = payload?;
        if let Payload::Version { range, .. } = &payload {
            out.extend_from_slice(&module[range.clone()]);
        }
        if matches!(payload, Payload::CustomSection(_)) {
            continue;
        }
        if let Some((id, range)) = payload.as_section() {
            out.push(id);
            let mut len = range.len();
            while len >= 0x80 {
                out.push((len & 0x7f) as u8 | 0x80);
                len >>= 7;
            }
            out.push(len as u8);
            out.extend_from_slice(&module[range]);
        }
    }
    Ok(out)
}

/// A file of the package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileSize {
    /// Name in the package.
    pub name: String,
    /// Its bytes.
    #[serde(flatten)]
    pub size: Size,
}

impl FileSize {
    fn is_module(&self) -> bool {
        Path::new(&self.name).extension().is_some_and(|e| e == "wasm")
    }
}

/// The package's sizes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The module and the scripts.
    pub files: Vec<FileSize>,
    /// [`LARGEST_MODULE`].
    pub largest_module: u64,
    /// What takes the bytes of the module.
    pub module: Breakdown,
}

impl Report {
    /// The module, if it is too large.
    pub fn too_large(&self) -> Option<&FileSize> {
        self.files.iter().find(|file| file.is_module() && file.size.brotli > self.largest_module)
    }
}

/// Tables for a terminal.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kb = |bytes: u64| format!("{:.1}", bytes as f64 / 1000.0);
        writeln!(f, "{:>10} {:>10} {:>10}  kB", "raw", "gzip", "brotli")?;
        let mut line = |name: &str, size: &Size| {
            writeln!(f, "{:>10} {:>10} {:>10}  {name}", kb(size.raw), kb(size.gzip), kb(size.brotli))
        };
        let (modules, scripts): (Vec<_>, Vec<_>) = self.files.iter().partition(|file| file.is_module());
        for FileSize { name, size } in modules {
            line(name, size)?;
        }
        let all = scripts.iter().fold(Size::default(), |all, FileSize { size, .. }| Size {
            raw: all.raw + size.raw,
            gzip: all.gzip + size.gzip,
            brotli: all.brotli + size.brotli,
        });
        line(&format!("{} scripts", scripts.len()), &all)?;
        writeln!(f)?;
        let tables = [
            ("sections", &self.module.sections, 5),
            ("code by crate", &self.module.crates, 16),
            ("largest functions", &self.module.functions, 8),
            ("data", &self.module.data, 4),
        ];
        for (title, parts, shown) in tables {
            writeln!(f, "{title}, kB before compression:")?;
            for Part { name, bytes } in parts.iter().take(shown) {
                let name: String = name.chars().take(100).collect();
                writeln!(f, "{:>10}  {name}", kb(*bytes))?;
            }
            let rest: u64 = parts.iter().skip(shown).map(|part| part.bytes).sum();
            if rest > 0 {
                writeln!(f, "{:>10}  {} more", kb(rest), parts.len() - shown)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasm_encoder::{
        CodeSection, DataSection, EntityType, Function, FunctionSection, ImportSection, Module, NameMap,
        NameSection, TypeSection,
    };

    /// One import, two functions of 100 and 300 bytes about, 500 bytes of data.
    fn module() -> Vec<u8> {
        let mut types = TypeSection::new();
        types.ty().function([], []);
        let mut imports = ImportSection::new();
        imports.import("js", "log", EntityType::Function(0));
        let mut functions = FunctionSection::new();
        let mut code = CodeSection::new();
        for nops in [100, 300] {
            functions.function(0);
            let mut body = Function::new([]);
            for _ in 0..nops {
                body.instructions().nop();
            }
            body.instructions().end();
            code.function(&body);
        }
        let mut data = DataSection::new();
        data.passive(vec![1; 500]);
        let mut names = NameSection::new();
        let mut of_functions = NameMap::new();
        of_functions.append(0, "js::log");
        of_functions.append(1, "_ZN11girih_model3run5model5Model4load17h0123456789abcdefE");
        of_functions.append(2, "_RNvCs1234_10tokenizers5merge");
        names.functions(&of_functions);
        let mut of_data = NameMap::new();
        of_data.append(0, ".rodata");
        names.data(&of_data);
        let mut module = Module::new();
        module.section(&types).section(&imports).section(&functions);
        module.section(&code).section(&data).section(&names);
        module.finish()
    }

    #[test]
    fn functions_are_summed_by_crate() {
        let breakdown = Breakdown::of(&module()).unwrap();
        let names: Vec<&str> = breakdown.crates.iter().map(|part| part.name.as_str()).collect();
        assert_eq!(names, ["tokenizers", "girih_model"], "{breakdown:?}");
        assert!((300..310).contains(&breakdown.crates[0].bytes));
        assert!((100..110).contains(&breakdown.crates[1].bytes));
        assert_eq!(breakdown.functions[1].name, "girih_model::run::model::Model::load");
        assert_eq!(breakdown.data, [Part { name: ".rodata".into(), bytes: 500 }]);
        assert_eq!(breakdown.sections[0].name, "data");
        assert!(breakdown.sections.iter().any(|part| part.name == "custom name"));
        assert!(Breakdown::of(b"no module").is_err());
    }

    #[test]
    fn a_generic_function_counts_for_whom_it_was_compiled() {
        for (function, wanted) in [
            ("girih_model::run::model::Model::load", "girih_model"),
            ("<wgpu::Device as core::fmt::Debug>::fmt", "wgpu"),
            ("<alloc::vec::Vec<tokenizers::Token> as core::ops::Drop>::drop", "tokenizers"),
            ("core::ptr::drop_in_place::<&mut tokenizers::Token>", "tokenizers"),
            ("core::fmt::write", "standard library"),
            ("<&str as core::fmt::Display>::fmt", "standard library"),
            ("<dyn core::any::Any>::type_id", "standard library"),
            ("memcpy", "without a crate"),
            ("", "without a crate"),
        ] {
            assert_eq!(crate_of(function), wanted, "{function}");
        }
        assert_eq!(without_hash("a::load::h647bf22e7d5bd4c1"), "a::load");
        assert_eq!(without_hash("a::load::half"), "a::load::half");
    }

    #[test]
    fn custom_sections_go_and_the_rest_stays() {
        let named = module();
        let bare = without_custom_sections(&named).unwrap();
        assert!(named.starts_with(&bare), "the name section was the last one");
        let breakdown = Breakdown::of(&bare).unwrap();
        assert_eq!(breakdown.crates.len(), 1);
        assert_eq!(breakdown.crates[0].name, "without a crate");
        assert!(!breakdown.sections.iter().any(|part| part.name.starts_with("custom")));
    }

    #[test]
    fn sizes_are_those_of_the_formats() {
        let size = Size::of(&vec![42; 100_000]);
        assert_eq!(size.raw, 100_000);
        assert!(size.gzip < 200 && size.brotli < 60, "{size:?}");
        let mut state = 1u32;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .take(10_000)
        .collect();
        let size = Size::of(&noise);
        assert!(size.gzip > 9_900 && size.brotli > 9_900, "noise does not shrink: {size:?}");
    }

    #[test]
    fn a_module_that_is_too_large_is_named() {
        let file =
            |name: &str, brotli| FileSize { name: name.into(), size: Size { raw: 9, gzip: 9, brotli } };
        let mut report = Report {
            files: vec![file("a.wasm", 100), file("b.js", 101)],
            largest_module: 100,
            module: Breakdown::of(&module()).unwrap(),
        };
        assert_eq!(report.too_large(), None);
        report.files[0].size.brotli = 101;
        assert_eq!(report.too_large().unwrap().name, "a.wasm");
        let text = report.to_string();
        assert!(text.contains("tokenizers") && text.contains(".rodata"), "{text}");
        assert!(text.contains("1 scripts"), "{text}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["files"][0]["brotli"], 101);
    }
}
