//! `OUT.partial`: what is done so far, and of which run.

use std::fs;
use std::path::{Path, PathBuf};

use girih_model::format::safetensors::TensorTable;
use girih_model::source::DirSource;
use serde_json::Value;

use super::{Error, Tensors};
use crate::error::Failure;

const MANIFEST: &str = "manifest.json";
const PARTS: &str = "parts";

/// The unfinished folder.
#[derive(Debug)]
pub struct Partial {
    dir: PathBuf,
}

/// FNV-1a, 64 bits.
pub fn hash(bytes: &[u8]) -> String {
    let step = |h: u64, b: &u8| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3);
    format!("{:016x}", bytes.iter().fold(0xcbf2_9ce4_8422_2325, step))
}

fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Failure {
    let path = path.display().to_string();
    |source| Failure::File { path, source }
}

/// `OUT.partial` and `OUT.replaced`.
fn beside(out: &Path, suffix: &str) -> Result<PathBuf, Failure> {
    let bad = || Failure::Argument(format!("{}: is no name of a folder", out.display()));
    let mut name = out.file_name().ok_or_else(bad)?.to_owned();
    name.push(suffix);
    Ok(out.with_file_name(name))
}

/// Whether girih has written a folder: nothing else is ever deleted.
fn is_ours(dir: &Path) -> bool {
    let config = fs::read(dir.join("config.json")).ok();
    let config: Option<Value> = config.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    config.is_some_and(|c| c["quantization_config"]["quant_method"] == "girih")
        && dir.join("quantize-report.json").is_file()
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

/// Refuses a target that is there and may not be replaced.
pub fn check_target(out: &Path, force: bool) -> Result<(), Failure> {
    beside(out, "")?;
    if fs::symlink_metadata(out).is_err() {
        return Ok(());
    }
    let folder = out.to_owned();
    if !force {
        return Err(Error::Exists { folder }.into());
    }
    if is_ours(out) || is_empty(out) { Ok(()) } else { Err(Error::Foreign { folder }.into()) }
}

impl Partial {
    /// Goes on with the unfinished run of `out`, or begins one.
    pub fn open(out: &Path, manifest: &Value, restart: bool) -> Result<Self, Failure> {
        let dir = beside(out, ".partial")?;
        let path = dir.join(MANIFEST);
        let known = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        if dir.exists() {
            let Some(known) = known.as_ref().filter(|m| m["girih"].is_string()) else {
                if is_empty(&dir) {
                    return Self::begin(dir, manifest);
                }
                return Err(Error::Foreign { folder: dir }.into());
            };
            if restart {
                fs::remove_dir_all(&dir).map_err(file(&dir))?;
            } else if let Some((field, want)) = manifest
                .as_object()
                .into_iter()
                .flatten()
                .find(|(field, want)| known[field.as_str()] != **want)
            {
                let (got, want) = (known[field.as_str()].to_string(), want.to_string());
                return Err(Error::OtherRun { folder: dir, field: field.clone(), got, want }.into());
            } else {
                return Ok(Self { dir });
            }
        }
        Self::begin(dir, manifest)
    }

    fn begin(dir: PathBuf, manifest: &Value) -> Result<Self, Failure> {
        let partial = Self { dir };
        let parts = partial.dir.join(PARTS);
        fs::create_dir_all(&parts).map_err(file(&parts))?;
        partial.write_file(MANIFEST, format!("{manifest:#}\n").as_bytes())?;
        Ok(partial)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// File of a step, relative to the folder.
    pub fn part(i: usize) -> String {
        format!("{PARTS}/{i:05}.safetensors")
    }

    /// What is known about the modules of a step, if it is done.
    pub fn info(&self, i: usize) -> Option<Value> {
        // The tensors are written last: their file makes the step a finished one.
        let source = DirSource::new(&self.dir);
        pollster::block_on(TensorTable::open_file(&source, &Self::part(i))).ok()?;
        let bytes = fs::read(self.dir.join(PARTS).join(format!("{i:05}.json"))).ok()?;
        serde_json::from_slice::<Value>(&bytes).ok().filter(Value::is_array)
    }

    /// Writes a finished step.
    pub fn write(&self, i: usize, tensors: Tensors, info: &Value) -> Result<(), Failure> {
        self.write_file(&format!("{PARTS}/{i:05}.json"), info.to_string().as_bytes())?;
        let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
        for (name, dtype, shape, bytes) in tensors {
            let range = [data.len(), data.len() + bytes.len()];
            header.insert(
                name,
                serde_json::json!({ "dtype": dtype.name(), "shape": shape, "data_offsets": range }),
            );
            data.extend(bytes);
        }
        let mut whole = super::writer::header(&Value::Object(header));
        whole.extend(data);
        self.write_file(&Self::part(i), &whole)
    }

    /// Writes a file under its name when it is whole.
    pub fn write_file(&self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        let path = self.dir.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(file(parent))?;
        }
        let temporary = self.dir.join("unfinished");
        fs::write(&temporary, bytes).map_err(file(&temporary))?;
        fs::rename(&temporary, &path).map_err(file(&path))
    }

    /// Removes what only the run needs and gives the folder its name.
    pub fn finish(self, out: &Path) -> Result<(), Failure> {
        let old = beside(out, ".replaced")?;
        if out.exists() {
            fs::rename(out, &old).map_err(file(out))?;
        }
        fs::rename(&self.dir, out).map_err(file(out))?;
        let parts = out.join(PARTS);
        fs::remove_dir_all(&parts).map_err(file(&parts))?;
        let manifest = out.join(MANIFEST);
        fs::remove_file(&manifest).map_err(file(&manifest))?;
        if old.exists() {
            fs::remove_dir_all(&old).map_err(file(&old))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use girih_model::format::safetensors::StoredType;
    use serde_json::json;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("girih-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).expect("a folder");
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn step(partial: &Partial, i: usize) {
        let tensor = (format!("t{i}"), StoredType::U32, vec![1], vec![1, 0, 0, 0]);
        partial.write(i, vec![tensor], &json!([{ "name": "t" }])).expect("written");
    }

    #[test]
    fn a_run_goes_on_where_it_was() {
        let folder = Folder::new("resume");
        let out = folder.0.join("out");
        let manifest = json!({ "girih": "1", "scheme": "w4a16", "seed": 0 });
        let partial = Partial::open(&out, &manifest, false).expect("begun");
        step(&partial, 0);
        step(&partial, 2);
        // A file that was cut, and one whose description is missing, are not finished.
        step(&partial, 3);
        let cut = partial.path().join(Partial::part(3));
        let bytes = fs::read(&cut).expect("a part");
        fs::write(&cut, &bytes[..bytes.len() - 1]).expect("cut");
        step(&partial, 4);
        fs::remove_file(partial.path().join("parts/00004.json")).expect("removed");
        let again = Partial::open(&out, &manifest, false).expect("goes on");
        let done: Vec<bool> = (0..5).map(|i| again.info(i).is_some()).collect();
        assert_eq!(done, [true, false, true, false, false]);
        // Other options: an error that says which and how to go on.
        let other = json!({ "girih": "1", "scheme": "w8a16", "seed": 0 });
        let error = Partial::open(&out, &other, false).expect_err("another scheme").to_string();
        assert!(
            error.contains("scheme") && error.contains("w4a16") && error.contains("--restart"),
            "{error}"
        );
        let restarted = Partial::open(&out, &other, true).expect("anew");
        assert!(restarted.info(0).is_none());
        restarted.finish(&out).expect("named");
        assert!(out.is_dir() && !folder.0.join("out.partial").exists());
        assert!(is_empty(&out), "manifest and parts are gone");
    }

    #[test]
    fn only_our_own_folders_are_replaced() {
        let folder = Folder::new("target");
        let out = folder.0.join("out");
        check_target(&out, false).expect("nothing is there");
        fs::create_dir(&out).expect("a folder");
        assert!(check_target(&out, false).is_err());
        check_target(&out, true).expect("an empty folder may be replaced");
        fs::write(out.join("thesis.txt"), "x").expect("written");
        let error = check_target(&out, true).expect_err("somebody's folder").to_string();
        assert!(error.contains("not replaced"), "{error}");
        let config = json!({ "quantization_config": { "quant_method": "girih" } });
        fs::write(out.join("config.json"), config.to_string()).expect("written");
        fs::write(out.join("quantize-report.json"), "{}").expect("written");
        check_target(&out, true).expect("ours");
        let partial = folder.0.join("out.partial");
        fs::create_dir(&partial).expect("a folder");
        fs::write(partial.join("diary.txt"), "x").expect("written");
        let manifest = json!({ "girih": "1" });
        assert!(Partial::open(&out, &manifest, true).is_err(), "somebody's folder is not thrown away");
        assert!(partial.join("diary.txt").exists());
    }

    #[test]
    fn hashes() {
        assert_eq!(hash(b""), "cbf29ce484222325");
        assert_eq!(hash(b"a"), "af63dc4c8601ec8c");
    }
}
