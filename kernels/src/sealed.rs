//! Files that girih keeps between runs: sealed, so that a torn or damaged one is noticed, and written beside their
//! place and renamed, so that two processes never write the same file and a full disk leaves the old one.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// Begins every sealed file; the last character is the version.
const MAGIC: &[u8; 8] = b"girih-s1";
/// Magic, length and checksum.
const HEAD: usize = 24;
/// Files that a process began to write and left are removed after this time.
const LEFT_OVER: Duration = Duration::from_hours(1);

/// Why a file is not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// It does not begin as sealed files do.
    #[error("it was written by another version or program")]
    Foreign,
    /// Bytes are missing, or there are more.
    #[error("it holds {got} bytes of {want}")]
    Length {
        /// Bytes found.
        got: u64,
        /// Bytes that were sealed.
        want: u64,
    },
    /// Bytes differ.
    #[error("its checksum is wrong")]
    Checksum,
}

/// FNV-1a.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

/// Content with magic, length and checksum in front.
pub fn seal(content: &[u8]) -> Vec<u8> {
    [&MAGIC[..], &(content.len() as u64).to_le_bytes(), &hash(content).to_le_bytes(), content].concat()
}

/// The content of a sealed file.
///
/// # Errors
/// A file that is not as it was sealed.
pub fn open(bytes: &[u8]) -> Result<&[u8], Damage> {
    let (head, content) = bytes.split_first_chunk::<HEAD>().ok_or(Damage::Foreign)?;
    let (magic, numbers) = head.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(Damage::Foreign);
    }
    let [want, sum] =
        [&numbers[..8], &numbers[8..]].map(|n| n.iter().rev().fold(0, |all, &b| (all << 8) | u64::from(b)));
    let got = content.len() as u64;
    if got != want {
        return Err(Damage::Length { got, want });
    }
    if hash(content) != sum {
        return Err(Damage::Checksum);
    }
    Ok(content)
}

/// What a file holds: `None` if there is none, or if it is damaged or cannot be read, which is said once as a warning
/// with what follows from it.
pub(crate) fn read(path: &Path, what: &str, therefore: &str) -> Option<Vec<u8>> {
    let reason = match std::fs::read(path) {
        Ok(bytes) => match open(&bytes) {
            Ok(content) => return Some(content.to_vec()),
            Err(damage) => damage.to_string(),
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return None,
        Err(e) => e.to_string(),
    };
    tracing::warn!("{what} {} is not used: {reason}; {therefore}", path.display());
    None
}

/// Seals content into a file. The name under which it is written first belongs to this call alone.
///
/// # Errors
/// A folder that cannot be written, a full disk.
pub(crate) fn write(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new(""));
    std::fs::create_dir_all(dir)?;
    sweep(dir, SystemTime::now());
    let part = part_of(path);
    let written = std::fs::write(&part, seal(content)).and_then(|()| std::fs::rename(&part, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    written
}

/// `NAME.PROCESS-NUMBER-TIME.part`: other processes have other numbers, an earlier one of that number another time.
fn part_of(path: &Path) -> PathBuf {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |t| t.as_nanos());
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}-{call}-{time:x}.part", std::process::id()));
    path.with_file_name(name)
}

/// Removes what earlier processes began to write and left. Only names that girih makes are looked at.
fn sweep(dir: &Path, now: SystemTime) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let ours = ["pipelines-", "selftest-", "tuned-"].iter().any(|kind| name.starts_with(kind));
        if !ours || !name.ends_with(".part") {
            continue;
        }
        let written = entry.metadata().and_then(|m| m.modified());
        if written.is_ok_and(|t| now.duration_since(t).is_ok_and(|age| age > LEFT_OVER)) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("girih-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        dir
    }

    #[test]
    fn only_what_was_sealed_opens() {
        let sealed = seal(b"abc");
        assert_eq!(open(&sealed), Ok(&b"abc"[..]));
        assert_eq!(open(&seal(b"")), Ok(&b""[..]));
        for cut in 0..sealed.len() {
            assert!(open(&sealed[..cut]).is_err(), "{cut}");
        }
        assert_eq!(open(&sealed[..sealed.len() - 1]), Err(Damage::Length { got: 2, want: 3 }));
        assert!(matches!(open(&[&sealed[..], b"d"].concat()), Err(Damage::Length { got: 4, want: 3 })));
        for i in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[i] ^= 1;
            assert!(open(&damaged).is_err(), "{i}");
        }
    }

    /// Writers at once leave one whole file, no other; a damaged one is as none.
    #[test]
    fn many_writers_leave_one_whole_file() {
        let dir = folder("sealed");
        let path = dir.join("pipelines-0.bin");
        let contents: Vec<Vec<u8>> = (0..8u8).map(|i| vec![i; 1 << 16]).collect();
        std::thread::scope(|scope| {
            for content in &contents {
                scope.spawn(|| write(&path, content).expect("written"));
            }
        });
        let content = read(&path, "", "").expect("whole");
        assert!(contents.contains(&content));
        let names: Vec<_> = std::fs::read_dir(&dir).expect("a folder").flatten().collect();
        assert_eq!(names.len(), 1, "{names:?}");
        std::fs::write(&path, &seal(&content)[..100]).expect("written");
        assert_eq!(read(&path, "", ""), None);
        std::fs::remove_dir_all(&dir).expect("removed");
    }

    #[test]
    fn old_parts_are_swept_and_fresh_ones_left() {
        let dir = folder("sweep");
        std::fs::create_dir_all(&dir).expect("a folder");
        let names = ["selftest-1.verdict.1-0-0.part", "pipelines-2.part", "selftest-1.verdict", "other.part"];
        for name in names {
            std::fs::write(dir.join(name), b"x").expect("written");
        }
        let left = |now| {
            sweep(&dir, now);
            names.map(|name| dir.join(name).exists())
        };
        assert_eq!(left(SystemTime::now()), [true; 4]);
        assert_eq!(left(SystemTime::now() + 2 * LEFT_OVER), [false, false, true, true]);
        std::fs::remove_dir_all(&dir).expect("removed");
    }
}
