//! Makes `web` in cargo's target folder from the modules of a build: `girih` is the npm package, `site` the static site, `tests` the
//! pages of the browser tests.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::json;
use sha2::{Digest, Sha256};
use wasm_bindgen_cli_support::Bindgen;

use crate::manifest::{self, Manifest, ManifestError};
use crate::size::{self, Breakdown, FileSize, Report, Size};

/// The models that the site comes with, beside the module; the page fetches the one that is chosen.
const SITE_MODELS: [&str; 2] = ["fable-5m", "fable-moe"];

/// Passes of binaryen. LLVM has done most of it: of the engine's module, 4.06 MB and 1.054 MB after brotli, -O1 leaves
/// 3.95 and 1.046 in 16 s of one core, -Oz 3.84 and 1.065 in 48 s.
const WASM_OPT_LEVEL: &str = "-O1";

/// Where things are.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The repository.
    pub root: PathBuf,
    /// Folder of `girih_web.wasm` and `girih_browser_tests.wasm`.
    pub modules: PathBuf,
    /// What is made.
    pub out: PathBuf,
}

impl Paths {
    /// Those of `cargo xtask web`, with cargo's target folder.
    pub fn of(root: &Path, target: &Path) -> Self {
        Self { root: root.into(), modules: target.join("wasm32-unknown-unknown/wasm"), out: out(target) }
    }

    /// The sizes; written last, so that it is there if the package is whole.
    pub fn report(&self) -> PathBuf {
        self.out.join("size.json")
    }
}

/// Where packages are made.
pub fn out(target: &Path) -> PathBuf {
    target.join("web")
}

/// A package that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// A file or folder.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A module that was not built.
    #[error("found no {}, wanted the module of `cargo build --profile wasm --target wasm32-unknown-unknown`: \
             `cargo xtask web` does all of it", .0.display())]
    NoModule(PathBuf),
    /// A module that wasm-bindgen refuses.
    #[error("wasm-bindgen, {module}: {message}")]
    Bindgen {
        /// Its name.
        module: String,
        /// What wasm-bindgen says.
        message: String,
    },
    /// A module that is none.
    #[error("{module}: {source}")]
    Module {
        /// Its name.
        module: String,
        /// Where it stops being one.
        source: wasmparser::BinaryReaderError,
    },
    /// A program that is missing or fails.
    #[error("`{command}`: {message}")]
    Program {
        /// What was run.
        command: String,
        /// What came of it.
        message: String,
    },
    /// The manifest of one of the site's models.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// TypeScript that compiles, but not to where it is served from.
    #[error("found no {}, wanted it from the TypeScript compiler", .0.display())]
    NotCompiled(PathBuf),
    /// A module over [`size::LARGEST_MODULE`].
    #[error("{name}: found {found} bytes after brotli, wanted at most {wanted}")]
    TooLarge {
        /// The module.
        name: String,
        /// Its bytes.
        found: u64,
        /// The limit.
        wanted: u64,
    },
}

/// Makes everything; returns the sizes, which are also in `size.json`.
///
/// # Errors
/// A step that fails; a module that is too large, after the report was printed and written.
pub fn make(paths: &Paths) -> Result<Report, PackageError> {
    let Paths { root, out, .. } = paths;
    let (package, site, tests) = (out.join("girih"), out.join("site"), out.join("tests"));
    remove(&paths.report())?;
    for dir in [&package, &site, &tests] {
        remove(dir)?;
        fs::create_dir_all(dir).map_err(io_error(dir))?;
    }
    let web = root.join("web");
    timed("npm ci", || install_npm_packages(&web))?;

    timed("wasm-bindgen", || bindgen(paths, "girih_web", &package, true))?;
    timed("wasm-bindgen (tests)", || bindgen(paths, "girih_browser_tests", &tests, false))?;
    let module = package.join("girih_web_bg.wasm");
    let named = timed("wasm-opt", || optimise(&web, &module, &out.join("wasm-opt")))?;
    let malformed = |source| PackageError::Module { module: "girih_web_bg.wasm".into(), source };
    let bare = size::without_custom_sections(&named).map_err(malformed)?;
    fs::write(&module, bare).map_err(io_error(&module))?;

    timed("tsc", || compile_typescript(&web, out))?;
    for name in ["package.json", "README.md"] {
        copy(&web.join(name), &package.join(name))?;
    }
    for license in ["LICENSE-APACHE", "LICENSE-MIT"] {
        copy(&root.join(license), &package.join(license))?;
    }
    copy_assets(&web.join("page"), &site)?;
    copy_tree(&package, &site.join("girih"), &|_| true)?;
    copy_assets(&web.join("tests"), &tests)?;
    for name in ["kernels.html", "kernels.js"] {
        copy(&root.join("tests/browser").join(name), &tests.join(name))?;
    }
    for name in SITE_MODELS {
        let model = site.join("models").join(name);
        copy_tree(&root.join("assets").join(name), &model, &|_| true)?;
        Manifest::of(&model)?.write(&model)?;
    }
    for wanted in [package.join("index.js"), package.join("index.d.ts"), site.join("page.js")] {
        if !wanted.is_file() {
            return Err(PackageError::NotCompiled(wanted));
        }
    }

    let report = timed("sizes", || measure(&package, &named))?;
    print!("\n{report}");
    if let Some(file) = report.too_large() {
        let (found, wanted) = (file.size.brotli, report.largest_module);
        return Err(PackageError::TooLarge { name: file.name.clone(), found, wanted });
    }
    let json = serde_json::to_string_pretty(&report).map_err(io::Error::from);
    fs::write(paths.report(), json.map_err(io_error(&paths.report()))?).map_err(io_error(&paths.report()))?;
    Ok(report)
}

/// Runs a step and prints its time.
fn timed<T>(name: &str, step: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let result = step();
    println!("{:>8.1} s  {name}", begun.elapsed().as_secs_f64());
    result
}

/// Writes the module, its script and, if wanted, its types into a folder. Names of functions stay.
fn bindgen(paths: &Paths, name: &str, into: &Path, types: bool) -> Result<(), PackageError> {
    let input = paths.modules.join(format!("{name}.wasm"));
    if !input.is_file() {
        return Err(PackageError::NoModule(input));
    }
    let mut bindgen = Bindgen::new();
    let result = bindgen.web(true).and_then(|bindgen| {
        bindgen
            .input_path(&input)
            .typescript(types)
            .omit_default_module_path(false) // `init()` finds the module beside the script
            .remove_producers_section(true)
            .generate(into)
    });
    result.map_err(|error| PackageError::Bindgen { module: name.into(), message: format!("{error:#}") })
}

/// Puts the packages of `web/package-lock.json` into `web/node_modules`, unless they are there.
fn install_npm_packages(web: &Path) -> Result<(), PackageError> {
    let modified = |path: PathBuf| fs::metadata(path).and_then(|m| m.modified()).ok();
    let installed = modified(web.join("node_modules/.package-lock.json"));
    if installed.is_some() && installed >= modified(web.join("package-lock.json")) {
        return Ok(());
    }
    let mut npm = Command::new(if cfg!(windows) { "npm.cmd" } else { "npm" });
    npm.args(["ci", "--no-audit", "--no-fund", "--prefix"]).arg(web);
    run(npm)
}

/// Optimises a module; returns it with names. Without binaryen the module stays as it is. The last result is kept in
/// a folder, for a module that did not change.
fn optimise(web: &Path, module: &Path, kept: &Path) -> Result<Vec<u8>, PackageError> {
    let bytes = fs::read(module).map_err(io_error(module))?;
    let binaryen = web.join("node_modules/binaryen");
    let program = binaryen.join("bin/wasm-opt");
    if !program.is_file() {
        println!("no binaryen in web/node_modules: the module is not optimised");
        return Ok(bytes);
    }
    let version = binaryen.join("package.json");
    let mut key = Sha256::new();
    key.update(WASM_OPT_LEVEL);
    key.update(fs::read(&version).map_err(io_error(&version))?);
    key.update(&bytes);
    let result = kept.join(format!("{}.wasm", manifest::hex(&key.finalize())));
    if !result.is_file() {
        remove(kept)?;
        fs::create_dir_all(kept).map_err(io_error(kept))?;
        let partial = kept.join("partial.wasm");
        let mut node = Command::new("node");
        // The features are those that the module names: `--all-features` would let binaryen use ones that no
        // browser has.
        node.arg(program).args([WASM_OPT_LEVEL, "-g", "-o"]).arg(&partial).arg(module);
        run(node)?;
        fs::rename(&partial, &result).map_err(io_error(&result))?;
    }
    fs::read(&result).map_err(io_error(&result))
}

/// Compiles the package, the page and the tests, in this order. Each `tsconfig.json` is for editors and names folders of
/// `target/web`; what is compiled here goes to `out`, wherever it is.
fn compile_typescript(web: &Path, out: &Path) -> Result<(), PackageError> {
    let absolute = |path: &Path| std::path::absolute(path).map_err(io_error(path));
    let (web, out) = (absolute(web)?, absolute(out)?);
    let projects = out.join("tsc");
    remove(&projects)?;
    let mut node = Command::new("node");
    node.arg(web.join("node_modules/typescript/bin/tsc")).args(["--build", "--force"]);
    for (name, sources, to) in
        [("package", "ts", "girih"), ("page", "page", "site"), ("tests", "tests", "tests")]
    {
        let (sources, to, project) = (web.join(sources), out.join(to), projects.join(name));
        let base = if name == "package" { web.clone() } else { sources.clone() };
        let mut options = json!({ "rootDir": sources, "outDir": to });
        let mut config = json!({ "extends": base.join("tsconfig.json"), "include": [sources] });
        if name == "package" {
            options["tsBuildInfoFile"] = json!(project.join("tsbuildinfo"));
        } else {
            config["references"] = json!([{ "path": projects.join("package") }]);
        }
        if name == "tests" {
            options["rootDirs"] = json!([web, out]);
        }
        config["compilerOptions"] = options;
        fs::create_dir_all(&project).map_err(io_error(&project))?;
        let file = project.join("tsconfig.json");
        fs::write(&file, config.to_string()).map_err(io_error(&file))?;
        node.arg(project);
    }
    run(node)?;
    for dir in [out.clone(), out.join("site"), out.join("tests")] {
        for entry in fs::read_dir(&dir).map_err(io_error(&dir))? {
            let path = entry.map_err(io_error(&dir))?.path();
            if path.extension().is_some_and(|e| e == "tsbuildinfo") {
                remove(&path)?; // of no use to anyone who gets the folder
            }
        }
    }
    Ok(())
}

/// Sizes of the module and the scripts, and what takes the bytes of the module with names.
fn measure(package: &Path, named: &[u8]) -> Result<Report, PackageError> {
    let mut files = Vec::new();
    let mut open = vec![package.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).map_err(io_error(&dir))? {
            let path = entry.map_err(io_error(&dir))?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "wasm" || e == "js") {
                let bytes = fs::read(&path).map_err(io_error(&path))?;
                let name = path.strip_prefix(package).unwrap_or(&path).to_string_lossy().replace('\\', "/");
                files.push(FileSize { name, size: Size::of(&bytes) });
            }
        }
    }
    files.sort_by_key(|file| std::cmp::Reverse(file.size.raw));
    let malformed = |source| PackageError::Module { module: "girih_web_bg.wasm".into(), source };
    let module = Breakdown::of(named).map_err(malformed)?;
    Ok(Report { files, largest_module: size::LARGEST_MODULE, module })
}

fn run(mut command: Command) -> Result<(), PackageError> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    let failed = |message: String| PackageError::Program { command: words.join(" "), message };
    let status = command.stdin(Stdio::null()).status();
    let status = status.map_err(|e| failed(format!("{e} (`cargo xtask setup` installs node and npm)")))?;
    if status.success() { Ok(()) } else { Err(failed(status.to_string())) }
}

/// Copies what is not TypeScript: pages, styles, images.
fn copy_assets(from: &Path, to: &Path) -> Result<(), PackageError> {
    let is_source = |path: &Path| {
        path.extension().is_some_and(|e| e == "ts" || e == "md")
            || path.file_name().is_some_and(|name| name == "tsconfig.json")
    };
    copy_tree(from, to, &|path| !is_source(path))
}

/// Copies the files of a folder that are `wanted`, with those of its folders.
fn copy_tree(from: &Path, to: &Path, wanted: &dyn Fn(&Path) -> bool) -> Result<(), PackageError> {
    for entry in fs::read_dir(from).map_err(io_error(from))? {
        let path = entry.map_err(io_error(from))?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy_tree(&path, &target, wanted)?;
        } else if wanted(&path) {
            fs::create_dir_all(to).map_err(io_error(to))?;
            copy(&path, &target)?;
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<(), PackageError> {
    fs::copy(from, to).map(|_| ()).map_err(io_error(from))
}

/// Removes a file or folder, if it is there.
fn remove(path: &Path) -> Result<(), PackageError> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(path)(error)),
        _ => Ok(()),
    }
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> PackageError {
    let path = path.to_owned();
    move |source| PackageError::Io { path, source }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// A folder that goes when this is dropped.
    pub(crate) struct TempDir(PathBuf);

    impl TempDir {
        pub(crate) fn new() -> Self {
            static MADE: AtomicU32 = AtomicU32::new(0);
            let name = format!("girih-web-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        pub(crate) fn path(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for TempDir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn sources_are_not_published() {
        let dir = TempDir::new();
        let (from, to) = (dir.path().join("page"), dir.path().join("site"));
        fs::create_dir_all(from.join("icons")).unwrap();
        for name in ["index.html", "page.ts", "tsconfig.json", "icons/a.svg", "NOTES.md"] {
            fs::write(from.join(name), name).unwrap();
        }
        copy_assets(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("icons/a.svg")).unwrap(), "icons/a.svg");
        assert!(to.join("index.html").is_file());
        for absent in ["page.ts", "tsconfig.json", "NOTES.md"] {
            assert!(!to.join(absent).exists(), "{absent}");
        }
        remove(&to).unwrap();
        remove(&to).unwrap();
        assert!(!to.exists());
    }

    #[test]
    fn what_is_missing_is_named_with_the_command() {
        let dir = TempDir::new();
        let error = bindgen(&Paths::of(dir.path(), &dir.path().join("else")), "girih_web", dir.path(), true)
            .unwrap_err()
            .to_string();
        assert!(error.contains("girih_web.wasm") && error.contains("cargo xtask web"), "{error}");
        let error = run(Command::new("girih-no-such-program")).unwrap_err().to_string();
        assert!(error.contains("girih-no-such-program") && error.contains("cargo xtask setup"), "{error}");
    }

    #[test]
    fn a_module_stays_as_it_is_without_binaryen() {
        let dir = TempDir::new();
        let module = dir.path().join("m.wasm");
        fs::write(&module, b"\0asm\x01\0\0\0").unwrap();
        assert_eq!(optimise(dir.path(), &module, &dir.path().join("kept")).unwrap(), b"\0asm\x01\0\0\0");
    }
}
