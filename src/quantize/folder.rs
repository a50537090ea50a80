//! `OUT.partial`: what is done so far, and of which run.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use girih_model::checkpoint::source::DirSource;
use girih_model::checkpoint::table::TensorTable;
use serde_json::Value;

use super::{Error, Tensors};
use crate::error::Failure;

/// What must be equal for the run to go on. No checkpoint has a file of this name.
pub const MANIFEST: &str = ".girih-run.json";
/// Held by the process that works in the folder.
const LOCK: &str = ".girih-lock";
const PARTS: &str = "parts";
/// Ending of the name that a folder has while it is replaced.
const REPLACED: &str = ".replaced";
/// What names of files begin with that are not whole.
const UNFINISHED: &str = "unfinished";

/// The unfinished folder, which is this process's as long as this lives.
#[derive(Debug)]
pub struct Partial {
    dir: PathBuf,
    _lock: File,
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

fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
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

/// Whether a folder is what a run leaves that ends before it has written its manifest: no file that is whole.
fn is_bare(dir: &Path) -> bool {
    let ours = |entry: &fs::DirEntry| match entry.file_name().to_str() {
        Some(LOCK) => true,
        Some(PARTS) => is_empty(&entry.path()),
        Some(name) => name.starts_with(UNFINISHED) && entry.path().is_file(),
        None => false,
    };
    fs::read_dir(dir).is_ok_and(|mut entries| entries.all(|entry| entry.is_ok_and(|entry| ours(&entry))))
}

/// Takes the lock of a folder. The system gives it back however the process ends.
fn lock(dir: &Path) -> Result<File, Failure> {
    let path = dir.join(LOCK);
    let lock = File::options().write(true).create(true).truncate(false).open(&path).map_err(file(&path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(Error::Busy { file: path }.into()),
        // Some network file systems know no locks: better to work there than not.
        Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => {
            tracing::warn!("{}: cannot be locked ({e}); run nothing else that writes here", path.display());
            Ok(lock)
        }
        Err(TryLockError::Error(e)) => Err(file(&path)(e)),
    }
}

/// Refuses a target that is there and may not be replaced.
pub fn check_target(out: &Path, force: bool) -> Result<(), Failure> {
    let replaced = beside(out, REPLACED)?;
    if !is_there(out) {
        return Ok(());
    }
    let folder = out.to_owned();
    if !force {
        return Err(Error::Exists { folder }.into());
    }
    if !is_ours(out) && !is_empty(out) {
        return Err(Error::Foreign { folder }.into());
    }
    if is_there(&replaced) { Err(Error::InTheWay { folder: replaced }.into()) } else { Ok(()) }
}

impl Partial {
    /// Goes on with the unfinished run of `out`, or begins one.
    pub fn open(out: &Path, manifest: &Value, restart: bool) -> Result<Self, Failure> {
        let dir = beside(out, ".partial")?;
        let known = || {
            let bytes = fs::read(dir.join(MANIFEST)).ok()?;
            serde_json::from_slice::<Value>(&bytes).ok().filter(|m| m["girih"].is_string())
        };
        let foreign = |known: &Option<Value>| is_there(&dir) && known.is_none() && !is_bare(&dir);
        if foreign(&known()) {
            return Err(Error::Foreign { folder: dir }.into());
        }
        fs::create_dir_all(&dir).map_err(file(&dir))?;
        let lock = lock(&dir)?;
        // Now that nobody else works here: what is there?
        let known = known();
        if foreign(&known) {
            return Err(Error::Foreign { folder: dir }.into());
        }
        let partial = Self { dir, _lock: lock };
        if let Some(known) = known.filter(|_| !restart) {
            let differs = |(field, want): &(&String, &Value)| known[field.as_str()] != **want;
            if let Some((field, want)) = manifest.as_object().into_iter().flatten().find(differs) {
                let (got, want) = (known[field.as_str()].to_string(), want.to_string());
                let folder = partial.dir;
                return Err(Error::OtherRun { folder, field: field.clone(), got, want }.into());
            }
            partial.clear(|name| name.starts_with(UNFINISHED))?;
            return Ok(partial);
        }
        // The manifest goes last and comes first: it makes the folder ours.
        partial.clear(|name| name != LOCK && name != MANIFEST)?;
        partial.write_file(MANIFEST, format!("{manifest:#}\n").as_bytes())?;
        Ok(partial)
    }

    /// Removes what is in the folder.
    fn clear(&self, which: impl Fn(&str) -> bool) -> Result<(), Failure> {
        for entry in fs::read_dir(&self.dir).map_err(file(&self.dir))? {
            let entry = entry.map_err(file(&self.dir))?;
            if !entry.file_name().to_str().is_none_or(&which) {
                continue;
            }
            let path = entry.path();
            let folder = entry.file_type().is_ok_and(|t| t.is_dir());
            let removed = if folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(file(&path))?;
        }
        Ok(())
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
        let temporary = self.temporary();
        let write = || {
            let mut out = File::create(&temporary)?;
            out.write_all(bytes)?;
            out.sync_all()
        };
        write().map_err(file(&temporary))?;
        fs::rename(&temporary, &path).map_err(file(&path))
    }

    /// Where a file is written until it is whole.
    pub fn temporary(&self) -> PathBuf {
        self.dir.join(format!("{UNFINISHED}-{}", std::process::id()))
    }

    /// Gives the folder its name, in place of what `out` may be with `force`, and removes what only the run needs. If
    /// it fails, `out` is what it was.
    pub fn finish(self, out: &Path, force: bool) -> Result<(), Failure> {
        // Hours may have passed.
        check_target(out, force)?;
        let Self { dir, _lock: lock } = self;
        let replaced = if is_there(out) {
            let replaced = beside(out, REPLACED)?;
            fs::rename(out, &replaced).map_err(file(out))?;
            Some(replaced)
        } else {
            None
        };
        // Some systems rename no folder that has an open file.
        drop(lock);
        if let Err(source) = fs::rename(&dir, out) {
            if let Some(replaced) = &replaced {
                fs::rename(replaced, out).map_err(file(replaced))?;
            }
            return Err(file(out)(source));
        }
        let parts = out.join(PARTS);
        fs::remove_dir_all(&parts).or_else(unless_absent).map_err(file(&parts))?;
        for name in [LOCK, MANIFEST] {
            let path = out.join(name);
            fs::remove_file(&path).or_else(unless_absent).map_err(file(&path))?;
        }
        match replaced {
            Some(replaced) => fs::remove_dir_all(&replaced).map_err(file(&replaced)),
            None => Ok(()),
        }
    }
}

fn unless_absent(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use girih_model::checkpoint::table::StoredType;
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
        drop(partial);
        fs::write(folder.0.join("out.partial/unfinished-1"), "cut").expect("written");
        let again = Partial::open(&out, &manifest, false).expect("goes on");
        assert!(!again.path().join("unfinished-1").exists());
        let done: Vec<bool> = (0..5).map(|i| again.info(i).is_some()).collect();
        assert_eq!(done, [true, false, true, false, false]);
        let error = Partial::open(&out, &manifest, false).expect_err("two at a time").to_string();
        assert!(error.contains("in use") && error.contains(LOCK), "{error}");
        drop(again);
        // Other options: an error that says which and how to go on.
        let other = json!({ "girih": "1", "scheme": "w8a16", "seed": 0 });
        let error = Partial::open(&out, &other, false).expect_err("another scheme").to_string();
        assert!(
            error.contains("scheme") && error.contains("w4a16") && error.contains("--restart"),
            "{error}"
        );
        let restarted = Partial::open(&out, &other, true).expect("anew");
        assert!(restarted.info(0).is_none());
        restarted.finish(&out, false).expect("named");
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
    fn a_run_that_ended_at_once_is_no_obstacle() {
        let folder = Folder::new("bare");
        let out = folder.0.join("out");
        let manifest = json!({ "girih": "1" });
        fs::create_dir_all(folder.0.join("out.partial/parts")).expect("a folder");
        fs::write(folder.0.join("out.partial/unfinished-77"), "{").expect("written");
        let partial = Partial::open(&out, &manifest, false).expect("begun");
        assert!(!partial.path().join("unfinished-77").exists());
        // A checkpoint may have a file called manifest.json.
        partial.write_file("manifest.json", b"theirs").expect("written");
        drop(partial);
        let partial = Partial::open(&out, &manifest, false).expect("goes on");
        partial.finish(&out, false).expect("named");
        assert_eq!(fs::read(out.join("manifest.json")).expect("a file"), b"theirs");
        assert_eq!(fs::read_dir(&out).expect("a folder").count(), 1);
    }

    /// A folder that girih has written.
    fn ours(path: &Path, mark: &str) {
        fs::create_dir_all(path).expect("a folder");
        let config = json!({ "quantization_config": { "quant_method": "girih" } });
        fs::write(path.join("config.json"), config.to_string()).expect("written");
        fs::write(path.join("quantize-report.json"), mark).expect("written");
    }

    #[test]
    fn folders_of_others_survive_the_end_of_a_run() {
        let folder = Folder::new("finish");
        let [out, replaced, unfinished] =
            ["out", "out.replaced", "out.partial"].map(|name| folder.0.join(name));
        let manifest = json!({ "girih": "1" });
        let open = || Partial::open(&out, &manifest, false).expect("goes on");
        // One of the name that is used while another is replaced: not needed, not touched.
        fs::create_dir(&replaced).expect("a folder");
        fs::write(replaced.join("thesis.txt"), "x").expect("written");
        open().finish(&out, false).expect("named");
        assert!(replaced.join("thesis.txt").exists());
        // Needed: an error before any work, and at the end.
        ours(&out, "old");
        let error = check_target(&out, true).expect_err("in the way").to_string();
        assert!(error.contains("out.replaced"), "{error}");
        assert!(open().finish(&out, true).is_err());
        assert!(replaced.join("thesis.txt").exists() && unfinished.exists());
        fs::remove_dir_all(&replaced).expect("removed");
        // A folder that came while the run worked.
        assert!(open().finish(&out, false).is_err(), "not without --force");
        fs::remove_file(out.join("quantize-report.json")).expect("removed");
        assert!(open().finish(&out, true).is_err(), "not ours");
        assert!(out.join("config.json").exists() && unfinished.exists());
        // The new one cannot be named: the old one is where it was.
        ours(&out, "old");
        let partial = open();
        fs::remove_dir_all(&unfinished).expect("removed");
        assert!(partial.finish(&out, true).is_err());
        assert_eq!(fs::read(out.join("quantize-report.json")).expect("a file"), b"old");
        assert!(!replaced.exists());
        let partial = open();
        ours(partial.path(), "new");
        partial.finish(&out, true).expect("named");
        assert_eq!(fs::read(out.join("quantize-report.json")).expect("a file"), b"new");
        assert!(!replaced.exists() && !unfinished.exists());
    }

    #[test]
    fn hashes() {
        assert_eq!(hash(b""), "cbf29ce484222325");
        assert_eq!(hash(b"a"), "af63dc4c8601ec8c");
    }
}
