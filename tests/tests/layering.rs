//! The layers: who may depend on whom, who may name what. Reads manifests and source text; each rule is shown to
//! fail on a planted violation.

use xtask::source::{self, File};
use xtask::tidy;

/// Of our crates and the two that make a layer, what each member may depend on. A crate that is not listed here
/// has no place yet.
const MAY_DEPEND_ON: &[(&str, &[&str])] = &[
    (".", &["girih-kernels", "girih-ops", "girih-model", "girih-quantize"]),
    ("shaders", &[]),
    ("kernels", &["girih-shaders", "wgpu"]),
    ("ops", &["girih-kernels"]),
    ("model", &["girih-ops"]),
    ("quantize", &["girih-kernels"]),
    (
        "tests",
        &[
            "girih",
            "girih-shaders",
            "girih-kernels",
            "girih-ops",
            "girih-model",
            "girih-quantize",
            "girih-web-build",
            "girih-test-macros",
            "naga",
            "xtask",
        ],
    ),
    ("tests/browser", &["girih-kernels", "girih-ops", "girih-model", "girih-quantize", "girih-tests"]),
    ("tests/macros", &[]),
    ("web", &["girih-kernels", "girih-ops", "girih-model"]),
    ("web/build", &[]),
    ("fuzz", &["girih-kernels", "girih-model"]),
    ("isa", &["girih-kernels", "naga"]),
    ("xtask", &[]),
];

/// Files and folders that may ask at compile time whether this is a browser.
const MAY_ASK_TARGET: &[&str] = &["kernels/src/device/", "model/src/checkpoint/source/", "web/src/lib.rs"];

/// The files that may be unsafe: the cache that a driver reads, and what is no part of the library: the fuzzer's allocator that
/// counts and the counters of the compiler, and the calls of Vulkan that tell what a driver has compiled.
const MAY_BE_UNSAFE: [&str; 4] = [
    "kernels/src/device/pipeline_cache.rs",
    "fuzz/src/runtime.rs",
    "isa/src/vulkan/device.rs",
    "isa/src/vulkan/pipeline.rs",
];

/// Folders whose functions families may use.
const SHARED_FAMILIES: &[&str] = &["activation", "device", "quant"];

/// The modules of the crate `kernels`, the lowest first. Each uses those of the floors below it and itself. A module
/// that is named with its parent is a module of its own, and the parent is the rest.
const FLOORS_OF_KERNELS: &[&[&str]] = &[
    &["activation", "adapter", "buffer", "quant", "sealed", "twin"],
    &["choice"],
    &["winners"],
    &["caps"],
    &["case", "error"],
    &["fused", "grid", "spec"],
    &[
        "device::caps",
        "device::counters",
        "device::lock",
        "device::options",
        "device::pipeline_cache",
        "device::recent",
    ],
    &["device::open", "device::web"],
    &["device::failure"],
    &["device::pipelines"],
    &["device::bind_groups"],
    &["device"],
    &["recorder"],
    &["execute"],
    &["rows"],
    &[
        "attention",
        "elementwise",
        "embed",
        "matmul",
        "memory",
        "moe",
        "norm",
        "probe",
        "rope",
        "sample",
        "softmax",
        "ternary",
        "transform",
    ],
    &["registry"],
    &["testing"],
    &["bench", "explain", "selftest"],
    &["tune"],
];

/// Names of all dependencies of a manifest, renamed ones by the name of their package.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut inside = false;
    for line in manifest.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[') {
            let header = header.trim_end_matches(']');
            inside = header.ends_with("dependencies") && header != "workspace.dependencies";
            if let Some((table, name)) = header.rsplit_once('.')
                && table.ends_with("dependencies")
                && table != "workspace.dependencies"
            {
                found.push(name.to_owned());
            }
        } else if inside
            && !line.starts_with('#')
            && let Some((name, value)) = line.split_once('=')
        {
            let renamed = value.split_once("package").and_then(|(_, v)| v.split('"').nth(1));
            let name = name.trim().split('.').next().unwrap_or_default().trim_matches('"');
            found.push(renamed.unwrap_or(name).to_owned());
        }
    }
    found
}

fn members(manifest: &str) -> Vec<String> {
    let list = manifest.split_once("members = [").and_then(|(_, rest)| rest.split_once(']'));
    let list = list.map_or("", |(list, _)| list);
    list.split(',').map(|m| m.trim().trim_matches('"').to_owned()).filter(|m| !m.is_empty()).collect()
}

fn is_layer(dependency: &str) -> bool {
    dependency.starts_with("girih") || ["wgpu", "naga", "xtask"].contains(&dependency)
}

fn check_manifest(member: &str, manifest: &str) -> Vec<String> {
    let Some((_, allowed)) = MAY_DEPEND_ON.iter().find(|(name, _)| *name == member) else {
        return vec![format!("{member} has no place among the layers: add it to MAY_DEPEND_ON")];
    };
    let bad = dependencies(manifest).into_iter().filter(|d| is_layer(d) && !allowed.contains(&d.as_str()));
    bad.map(|d| format!("{member} depends on {d}; it may depend on {allowed:?}")).collect()
}

fn check_word(file: &File, word: &str) -> Vec<String> {
    let code = source::code(&file.text);
    let lines = source::words(&code).filter(|(_, w)| *w == word);
    lines.map(|(line, _)| format!("{}:{line} names {word}", file.path)).collect()
}

/// Modules below the crate, as absolute paths, that a file of it names.
fn modules_named(file: &File) -> Vec<(usize, Vec<String>)> {
    let inner = file.path.split_once("/src/").map_or("", |(_, p)| p).trim_end_matches(".rs");
    let mut here: Vec<String> = inner.split('/').map(str::to_owned).collect();
    if here.last().is_some_and(|last| last == "mod" || last == "lib") {
        here.pop();
    }
    let code = source::code(&file.text);
    let mut found = Vec::new();
    for (line, path) in source::paths(&code) {
        let ups = path.iter().take_while(|p| *p == "super").count();
        let base = if ups == 0 { Vec::new() } else { here[..here.len().saturating_sub(ups)].to_vec() };
        found.push((line, base.into_iter().chain(path.into_iter().skip(ups.max(1))).collect()));
    }
    found
}

/// Siblings in the folder `parent` (a module path) that a file in it names, other than its own part.
fn check_siblings(file: &File, parent: &[&str], siblings: &[String], shared: &[&str]) -> Vec<String> {
    let dir = parent.iter().fold(String::new(), |dir, part| dir + part + "/");
    let inner = file.path.split_once("/src/").map_or("", |(_, p)| p);
    let own = inner.strip_prefix(&dir).unwrap_or(inner);
    let own = own.split('/').next().unwrap_or_default().trim_end_matches(".rs");
    let mut violations = Vec::new();
    for (line, path) in modules_named(file) {
        if path.len() > parent.len() && path.iter().zip(parent).all(|(a, b)| a == b) {
            let named = &path[parent.len()];
            if named != own && siblings.contains(named) && !shared.contains(&named.as_str()) {
                violations.push(format!("{}:{line} names its sibling {named}", file.path));
            }
        }
    }
    violations
}

/// Names of the modules in a folder: subfolders, and files if `with_files`.
fn modules(files: &[File], dir: &str, with_files: bool) -> Vec<String> {
    let mut names: Vec<String> = files
        .iter()
        .filter_map(|f| f.path.strip_prefix(dir))
        .filter(|p| *p != "mod.rs" && (with_files || p.contains('/')))
        .map(|p| p.split('/').next().unwrap_or_default().trim_end_matches(".rs").to_owned())
        .collect();
    names.dedup();
    names
}

/// The floor of a module, as a path below the crate, and the name under which it stands there.
fn floor_of<'a>(floors: &[&[&'a str]], path: &[String]) -> Option<(usize, &'a str)> {
    (1..=path.len()).rev().find_map(|len| {
        let name = path[..len].join("::");
        let found = |(at, floor): (usize, &&[&'a str])| {
            floor.iter().find(|module| **module == name).map(|module| (at, *module))
        };
        floors.iter().enumerate().find_map(found)
    })
}

/// Modules of the same or a higher floor that a file names outside of its tests, itself apart.
fn check_floors(file: &File, floors: &[&[&str]]) -> Vec<String> {
    let inner = file.path.split_once("/src/").map_or("", |(_, p)| p).trim_end_matches(".rs");
    let here: Vec<String> = inner.split('/').map(str::to_owned).collect();
    let Some((floor, own)) = floor_of(floors, &here) else {
        return vec![format!("{} stands on no floor", file.path)];
    };
    let end = file.text.find("#[cfg(test)]").unwrap_or(file.text.len());
    let without_tests = File { path: file.path.clone(), text: file.text[..end].to_owned() };
    let mut violations = Vec::new();
    for (line, path) in modules_named(&without_tests) {
        match floor_of(floors, &path) {
            Some((below, name)) if below < floor || name == own => {}
            found => {
                let what = found.map_or("no module of a floor", |(_, name)| name);
                violations.push(format!("{}:{line} names {} ({what})", file.path, path.join("::")));
            }
        }
    }
    violations
}

fn assert_none(violations: &[String]) {
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

fn file(path: &str, text: &str) -> File {
    File { path: path.into(), text: text.into() }
}

fn rust(dir: &str) -> Vec<File> {
    source::files(&source::root(), dir, "rs")
}

#[test]
fn crates_depend_on_the_layer_below() {
    let root = source::root();
    let read = |member: &str| {
        std::fs::read_to_string(root.join(member).join("Cargo.toml")).expect("every member has a manifest")
    };
    let workspace = read(".");
    let mut members = members(&workspace);
    assert!(members.len() >= 6, "the workspace's members are read: {members:?}");
    members.push(".".into());
    assert_none(&members.iter().flat_map(|m| check_manifest(m, &read(m))).collect::<Vec<_>>());
}

#[test]
fn a_dependency_across_layers_is_seen() {
    for planted in [
        "[dependencies]\nwgpu.workspace = true",
        "[dependencies]\nwgpu = { workspace = true }",
        "[target.'cfg(unix)'.dependencies]\nwgpu = \"30\"",
        "[dependencies.wgpu]\nversion = \"30\"",
        "[dependencies]\ngpu = { package = \"wgpu\", version = \"30\" }",
        "[dev-dependencies]\ngirih-model.workspace = true",
        "[dependencies]\ngirih-shaders = { path = \"../shaders\" }",
    ] {
        assert_eq!(check_manifest("ops", planted).len(), 1, "{planted}");
    }
    assert_eq!(check_manifest("shaders", "[dependencies]\ngirih-kernels.workspace = true").len(), 1);
    assert_eq!(check_manifest("elsewhere", "").len(), 1);
    assert_none(&check_manifest("ops", "[workspace.dependencies]\nwgpu = \"30\"\n[lints]\nworkspace = true"));
    assert_eq!(members("[workspace]\nmembers = [\"a\",\n  \"b\"]"), ["a", "b"]);
}

#[test]
fn ops_and_models_do_not_name_wgpu() {
    let files: Vec<File> = ["ops/src", "model/src"].iter().flat_map(|dir| rust(dir)).collect();
    assert!(files.len() > 5, "the files are found");
    assert_none(&files.iter().flat_map(|f| check_word(f, "wgpu")).collect::<Vec<_>>());
}

#[test]
fn naming_wgpu_is_seen_in_code_and_not_in_comments() {
    assert_eq!(
        check_word(&file("ops/src/a.rs", "fn f() {\n  girih_kernels::wgpu::x();\n}"), "wgpu").len(),
        1
    );
    assert_none(&check_word(&file("ops/src/a.rs", "//! wgpu\n/* wgpu */ const X: &str = \"wgpu\";"), "wgpu"));
}

#[test]
fn kernel_families_do_not_use_each_other() {
    let files = rust("kernels/src");
    let families = modules(&files, "kernels/src/", false);
    assert!(families.contains(&"norm".to_owned()), "{families:?}");
    let of_families = files.iter().filter(|f| f.path.matches('/').count() > 2);
    let violations = of_families.flat_map(|f| check_siblings(f, &[], &families, SHARED_FAMILIES));
    assert_none(&violations.collect::<Vec<_>>());
}

#[test]
fn a_family_that_uses_another_is_seen() {
    let families = ["norm", "matmul", "activation"].map(str::to_owned);
    for planted in [
        "use crate::matmul::gemv;",
        "use crate::{caps::Caps, matmul::{self, gemv}};",
        "fn f() { crate::matmul::gemv::record(); }",
        "use super::super::matmul::gemv;",
    ] {
        let violations =
            check_siblings(&file("kernels/src/norm/a.rs", planted), &[], &families, SHARED_FAMILIES);
        assert!(!violations.is_empty(), "{planted}");
    }
    for allowed in
        ["use crate::caps::Caps; // crate::matmul", "use crate::activation::silu;", "use super::b;"]
    {
        assert_none(&check_siblings(
            &file("kernels/src/norm/a.rs", allowed),
            &[],
            &families,
            SHARED_FAMILIES,
        ));
    }
}

#[test]
fn modules_of_kernels_form_floors() {
    let files = rust("kernels/src");
    let (roots, files): (Vec<File>, Vec<File>) =
        files.into_iter().partition(|f| f.path == "kernels/src/lib.rs");
    assert!(roots.len() == 1 && files.len() > 40, "the files are found");
    assert_none(&files.iter().flat_map(|f| check_floors(f, FLOORS_OF_KERNELS)).collect::<Vec<_>>());
}

#[test]
fn a_module_that_uses_a_higher_floor_is_seen() {
    for (path, planted) in [
        ("kernels/src/spec.rs", "use crate::testing::TestCase;"),
        ("kernels/src/recorder.rs", "use crate::{buffer::Buffer, execute::Plan};"),
        ("kernels/src/device/pipelines.rs", "use super::Gpu;"),
        ("kernels/src/device/pipelines.rs", "fn f(gpu: &crate::device::Gpu) {}"),
        ("kernels/src/device/failure.rs", "use super::{counters::Counters, bind_groups::BindGroups};"),
        ("kernels/src/matmul/gemv.rs", "fn f() { crate::registry::KERNELS.len(); }"),
        ("kernels/src/bench.rs", "use crate::selftest::run;"),
        ("kernels/src/bench.rs", "use crate::Buffer;"),
        ("kernels/src/elsewhere.rs", ""),
    ] {
        let violations = check_floors(&file(path, planted), FLOORS_OF_KERNELS);
        assert_eq!(violations.len(), 1, "{path}: {planted}: {violations:?}");
    }
    for (path, allowed) in [
        ("kernels/src/execute.rs", "use crate::device::{Gpu, Pipeline};\nuse crate::recorder::Recorder;"),
        ("kernels/src/device/memory.rs", "use super::Gpu;\nuse super::lock::lock;"),
        (
            "kernels/src/matmul/gemv.rs",
            "use super::reference;\n#[cfg(test)]\nmod tests { use crate::bench; }",
        ),
    ] {
        assert_none(&check_floors(&file(path, allowed), FLOORS_OF_KERNELS));
    }
}

#[test]
fn architectures_do_not_use_each_other() {
    let files = rust("model/src");
    let archs = modules(&files, "model/src/network/arch/", true);
    let of_archs = files
        .iter()
        .filter(|f| f.path.starts_with("model/src/network/arch/") && !f.path.ends_with("arch/mod.rs"));
    assert_none(
        &of_archs.flat_map(|f| check_siblings(f, &["network", "arch"], &archs, &[])).collect::<Vec<_>>(),
    );
}

#[test]
fn an_architecture_that_uses_another_is_seen() {
    let archs = ["llama", "qwen3"].map(str::to_owned);
    for planted in [
        "use super::llama::Block;",
        "use crate::network::arch::{llama, Arch};",
        "fn f() { super::llama::g() }",
    ] {
        let violations = check_siblings(
            &file("model/src/network/arch/qwen3.rs", planted),
            &["network", "arch"],
            &archs,
            &[],
        );
        assert_eq!(violations.len(), 1, "{planted}");
    }
    for allowed in
        ["use super::Arch;", "use crate::network::layers::llama;", "use crate::network::arch::qwen3::Block;"]
    {
        assert_none(&check_siblings(
            &file("model/src/network/arch/qwen3.rs", allowed),
            &["network", "arch"],
            &archs,
            &[],
        ));
    }
}

fn check_target(file: &File) -> Vec<String> {
    if MAY_ASK_TARGET.iter().any(|path| file.path.starts_with(path)) {
        Vec::new()
    } else {
        check_word(file, "target_arch")
    }
}

#[test]
fn native_or_browser_is_asked_in_few_files() {
    let libraries = ["shaders", "kernels", "ops", "model", "src"];
    assert_none(
        &libraries.iter().flat_map(|dir| rust(dir)).flat_map(|f| check_target(&f)).collect::<Vec<_>>(),
    );
    let planted = "#[cfg(target_arch = \"wasm32\")]\nfn f() {}";
    assert_eq!(check_target(&file("ops/src/norm.rs", planted)).len(), 1);
    assert_none(&check_target(&file("kernels/src/device/mod.rs", planted)));
}

fn check_unsafe(file: &File) -> Vec<String> {
    if MAY_BE_UNSAFE.contains(&file.path.as_str()) { Vec::new() } else { check_word(file, "unsafe") }
}

#[test]
fn unsafe_is_in_few_files() {
    assert_none(
        &tidy::CODE.iter().flat_map(|dir| rust(dir)).flat_map(|f| check_unsafe(&f)).collect::<Vec<_>>(),
    );
    let planted = "#![allow(unsafe_code)]\nfn f() { unsafe { g() } }";
    assert_eq!(check_unsafe(&file("ops/src/norm.rs", planted)).len(), 1);
    for path in MAY_BE_UNSAFE {
        assert_none(&check_unsafe(&file(path, planted)));
    }
}

#[test]
fn names_say_what_differs() {
    let vague = tidy::vague_names(&tidy::code_files());
    let lines: Vec<String> =
        vague.iter().map(|(path, line, name, word)| format!("{path}:{line} {name} says {word}")).collect();
    println!("{} vague names", lines.len());
    assert_none(&lines);
    let planted = file("ops/src/a.rs", "fn fast_gemm() {}\nfn gemm() {}\n");
    assert_eq!(tidy::vague_names(&[planted]).len(), 1);
}

/// The floors of the crate `model`, from below: a module may use what lies on lower floors, not what lies beside it or
/// above. A file belongs to the longest name that fits.
const FLOORS_OF_MODEL: &[&[&str]] = &[
    &["error"],
    &["checkpoint::blocks"],
    &["checkpoint::table"],
    &["checkpoint::source"],
    &["checkpoint::synthetic", "checkpoint::format::json"],
    &["checkpoint::format"],
    &["checkpoint::tensors"],
    &["checkpoint::quantized"],
    &["checkpoint::weights"],
    &["network::rope", "text::pieces", "text::chat"],
    &["network::config", "text::vocabulary"],
    &["network::experts", "text::tokenizer"],
    &["network::layers"],
    &["network::arch"],
    &["run::sampler", "run::pooling"],
    &["run::generation_config", "run::embedding_config"],
    &["run::options"],
    &["run::memory"],
    &["run::model"],
    &["run::session"],
    &["run::passes"],
    &[
        "run::calibrate",
        "run::embed",
        "run::eval",
        "run::generate",
        "run::needs",
        "run::routing",
        "run::tune",
    ],
    &["run::locality"],
];

/// What the text side may use besides itself.
const BELOW_TEXT: [&str; 4] = ["error", "text", "checkpoint::source", "checkpoint::format::json"];

/// Modules behind the names that the crate's root re-exports.
fn reexported(root: &File) -> Vec<(String, String)> {
    let code = source::code(&root.text);
    let mut found = Vec::new();
    for part in code.split("pub use ").skip(1).filter_map(|rest| rest.split_once(';')) {
        let path = part.0.split_once("::{").map_or_else(|| part.0.rsplit_once("::"), Some);
        if let Some((module, names)) = path {
            let names = names.split([',', '{', '}']).map(str::trim).filter(|name| !name.is_empty());
            found.extend(names.map(|name| (name.to_owned(), module.to_owned())));
        }
    }
    found
}

/// Modules that are not below it and that a file of `model` names outside of its tests.
fn check_floors_of_model(file: &File, reexported: &[(String, String)]) -> Vec<String> {
    let own = file.path.trim_start_matches("model/src/").trim_end_matches(".rs").replace('/', "::");
    let in_model =
        |path: &str| floor_of(FLOORS_OF_MODEL, &path.split("::").map(str::to_owned).collect::<Vec<_>>());
    let Some((floor, name)) = in_model(&own) else {
        return vec![format!("{} has no floor: add {own} to FLOORS_OF_MODEL", file.path)];
    };
    let end = file.text.find("#[cfg(test)]").unwrap_or(file.text.len());
    let code = File { path: file.path.clone(), text: file.text[..end].to_owned() };
    let mut violations = Vec::new();
    for (line, path) in modules_named(&code) {
        let real = reexported.iter().find(|(exported, _)| path.first() == Some(exported));
        let path = real.map_or_else(|| path.join("::"), |(_, module)| module.clone());
        let Some((other, used)) = in_model(&path) else { continue };
        let is_text = path.starts_with("text");
        let known = if own.starts_with("text") {
            BELOW_TEXT.iter().any(|may| path.starts_with(may))
        } else {
            !is_text || own.starts_with("run")
        };
        if used != name && !(other < floor && known) {
            violations.push(format!("{}:{line}: {name} names {used}, which is not below it", file.path));
        }
    }
    violations
}

/// Modules of `model` that declare others, and what tests share.
fn has_floor(file: &File) -> bool {
    const NONE: [&str; 7] = [
        "lib",
        "testing",
        "checkpoint/mod",
        "network/mod",
        "run/mod",
        "text/mod",
        "text/chat/jinja/unit_tests",
    ];
    let inner = file.path.trim_start_matches("model/src/").trim_end_matches(".rs");
    !NONE.contains(&inner) && !inner.ends_with("/tests")
}

#[test]
fn modules_of_model_form_floors() {
    let files = rust("model/src");
    let root = files.iter().find(|f| f.path == "model/src/lib.rs").expect("the crate has a root");
    let reexported = reexported(root);
    assert!(reexported.contains(&("Session".to_owned(), "run::session".to_owned())), "{reexported:?}");
    assert!(reexported.contains(&("Config".to_owned(), "network::config".to_owned())), "{reexported:?}");
    let checked = files.iter().filter(|f| has_floor(f));
    assert_none(&checked.flat_map(|f| check_floors_of_model(f, &reexported)).collect::<Vec<_>>());

    for (path, planted) in [
        ("checkpoint/format/gguf/config.rs", "use crate::network::arch::KNOWN;"),
        ("checkpoint/quantized/mod.rs", "use crate::{Config, LoadError};"),
        ("checkpoint/quantized/rows.rs", "fn f(w: &super::super::weights::Weights) {}"),
        ("text/tokenizer/mod.rs", "use crate::network::config::Config;"),
        ("text/chat/files.rs", "use crate::checkpoint::weights::Weights;"),
        ("network/layers/mod.rs", "fn f() { crate::Tokenizer::load(); }"),
        ("network/config/layers.rs", "use crate::network::{arch, rope};"),
        ("run/model.rs", "use crate::Session;"),
        ("error/run.rs", "use super::super::run::sampler::SampleError;"),
        ("elsewhere.rs", ""),
    ] {
        let violations = check_floors_of_model(&file(&format!("model/src/{path}"), planted), &reexported);
        assert_eq!(violations.len(), 1, "{path}: {planted}: {violations:?}");
    }
    for (path, allowed) in [
        (
            "checkpoint/format/gguf/config.rs",
            "use super::super::json;\n#[cfg(test)]\nmod tests { use crate::Config; }",
        ),
        ("text/tokenizer/mod.rs", "use crate::checkpoint::source::read_whole;"),
        ("run/generate/mod.rs", "use crate::{Session, Tokenizer}; // crate::run::embed"),
        ("network/arch/llama.rs", "use crate::network::layers::Build;"),
    ] {
        assert_none(&check_floors_of_model(&file(&format!("model/src/{path}"), allowed), &reexported));
    }
}

/// The names of the fields of `struct Params`, without those that only fill: `pad..`, `unused..`.
fn params_fields(text: &str) -> Vec<String> {
    let Some((_, fields)) = text.split_once("struct Params {") else { return Vec::new() };
    let fields = fields.split('}').next().unwrap_or_default();
    let code: String =
        fields.lines().filter_map(|line| line.split("//").next()).collect::<Vec<_>>().join(" ");
    code.split_terminator(',')
        .filter_map(|field| field.split(':').next()?.split_whitespace().last().map(str::to_owned))
        .filter(|name| !name.starts_with("pad") && !name.starts_with("unused"))
        .filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'))
        .collect()
}

/// Kernels whose `Params` has other fields, or another order of them, than the shader that its comment names.
fn check_params(kernels: &[File], shaders: &[File]) -> Vec<String> {
    const MARK: &str = "/// Same layout as `Params` in ";
    let mut violations = Vec::new();
    for file in kernels {
        for (_, comment) in file.text.match_indices(MARK).map(|(at, _)| file.text.split_at(at)) {
            let place = comment[MARK.len()..].lines().next().unwrap_or_default().trim_end_matches('.');
            let folder = file.path.trim_start_matches("kernels/src/").rsplit_once('/').map_or("", |(f, _)| f);
            let named = place.strip_prefix('`').map(|name| format!("/{}", name.trim_end_matches('`')));
            let with_params = |f: &&File| f.text.contains("struct Params {");
            let found: Vec<&File> = match &named {
                Some(name) => shaders.iter().filter(|f| f.path.ends_with(name.as_str())).collect(),
                None => shaders
                    .iter()
                    .filter(|f| f.path.starts_with(&format!("shaders/{folder}/")))
                    .filter(with_params)
                    .collect(),
            };
            let want = params_fields(comment);
            if found.is_empty() || want.is_empty() {
                violations.push(format!("{}: finds no `Params` in {place}", file.path));
            }
            violations.extend(found.into_iter().filter(|f| params_fields(&f.text) != want).map(|f| {
                format!("{}: {want:?}, but {} has {:?}", file.path, f.path, params_fields(&f.text))
            }));
        }
    }
    violations
}

#[test]
fn params_have_the_fields_of_the_shader_in_its_order() {
    let shaders = source::files(&source::root(), "shaders", "wgsl");
    let kernels = rust("kernels/src");
    let with = |f: &&File| f.text.contains("struct Params {");
    let marked = |f: &&File| f.text.contains("/// Same layout as `Params` in ");
    assert_eq!(kernels.iter().filter(with).count(), kernels.iter().filter(marked).count(), "all say where");
    assert_none(&check_params(&kernels, &shaders));
}

#[test]
fn params_in_another_order_are_seen() {
    let rust = |fields: &str| {
        let text = format!("/// Same layout as `Params` in `k.wgsl`.\nstruct Params {{\n{fields}\n}}");
        vec![file("kernels/src/f/k.rs", &text)]
    };
    let shader = |fields: &str| vec![file("shaders/f/k.wgsl", &format!("struct Params {{ {fields} }}"))];
    let good = "    /// A, b: c.\n    pub a: u32,\n    b: [[u32; 4]; 2],\n    pad: [u32; 2],";
    let text = "a: u32,       // first, of all\n b: array<vec4<u32>, 2>, pad0: u32";
    assert!(check_params(&rust(good), &shader(text)).is_empty());
    assert_eq!(check_params(&rust("b: u32,\na: u32,"), &shader("a: u32, b: u32")).len(), 1);
    assert_eq!(check_params(&rust("a: u32,"), &shader("a: u32, b: u32")).len(), 1);
    assert_eq!(check_params(&rust("a: u32,"), &[]).len(), 1);
}

/// Variables that a shader declares without a value deeper than in a function's own block, and reads before it assigns them:
/// one compiler in use keeps what they held in the round of the loop before.
fn check_variables(file: &File) -> Vec<String> {
    let lines: Vec<&str> = file.text.lines().map(|line| line.split("//").next().unwrap_or("")).collect();
    let mut violations = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let declared = line.strip_prefix("        ").and_then(|l| l.trim_start().strip_prefix("var "));
        let Some((name, kind)) = declared.and_then(|d| d.split_once(':')) else { continue };
        if kind.contains('=') {
            continue;
        }
        let reads = |text: &str| source::words(text).any(|(_, word)| word == name);
        let first = lines[at + 1..].iter().find(|line| reads(line)).copied().unwrap_or("");
        // Of `if .. { x[i] = value; }` what is assigned.
        let assignment = first.rsplit_once(" = ").filter(|_| first.matches(" = ").count() == 1);
        let assigned = assignment.is_some_and(|(to, value)| {
            let to = to.rsplit(['{', ';']).next().unwrap_or("").trim();
            to.starts_with(name) && !to.ends_with(['+', '-', '*', '|']) && !reads(value)
        });
        if !assigned {
            violations.push(format!("{}:{} {name} is read before it is assigned", file.path, at + 1));
        }
    }
    violations
}

#[test]
fn variables_of_a_loop_are_assigned_first() {
    let shaders = source::files(&source::root(), "shaders", "wgsl");
    assert_none(&shaders.iter().flat_map(check_variables).collect::<Vec<_>>());
}

#[test]
fn variables_of_a_loop_that_are_read_first_are_seen() {
    let shader = |use_of_it: &str| {
        file(
            "shaders/f/k.wgsl",
            &format!("    for (;;) {{\n        var s: array<f32, 4>;\n{use_of_it}\n    }}"),
        )
    };
    for good in ["            s[x] = 0.0;", "        if a { s[x] = load(b); }", "        s[i] = 1.0; // s"] {
        assert_none(&check_variables(&shader(good)));
    }
    for bad in
        ["        s[x] += 1.0;", "        s[x] = s[x] + 1.0;", "        y = s[0];", "        f(s);", ""]
    {
        assert_eq!(check_variables(&shader(bad)).len(), 1, "{bad}");
    }
    assert_none(&check_variables(&file("shaders/f/k.wgsl", "    var s: array<f32, 4>;\n    s[0] += 1.0;")));
}
