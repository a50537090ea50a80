//! The file that winners are kept in.

use std::path::{Path, PathBuf};

use crate::caps::Caps;
use crate::device::{Gpu, fingerprint};
use crate::sealed;
use crate::selftest::shaders;
use crate::winners::Winners;

/// Winners that are kept in a folder, of one adapter, driver, version, tier and text of the shaders.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// What was measured.
    pub winners: Winners,
    path: Option<PathBuf>,
}

impl Kept {
    /// The winners of a device that `dir` holds; none where there is no folder, or no file that is whole.
    pub fn open(gpu: &Gpu, dir: Option<&Path>) -> Self {
        let caps = gpu.caps();
        let (device, shaders) = (fingerprint(&caps.adapter), shaders());
        let path = dir.map(|d| d.join(format!("tuned-{device:016x}-{shaders:016x}-{}.winners", caps.tier)));
        let read = path.as_ref().and_then(|path| {
            let content = sealed::read(path, "the file of winners", "`girih tune` measures again")?;
            let winners = std::str::from_utf8(&content).ok().and_then(Winners::read);
            if winners.is_none() {
                tracing::warn!("the file of winners {} says something else and is not used", path.display());
            }
            winners
        });
        Self { winners: read.unwrap_or_default(), path }
    }

    /// The device with the winners in force.
    #[must_use]
    pub fn apply(&self, gpu: &Gpu) -> Gpu {
        if gpu.caps().tuned == self.winners {
            return gpu.clone();
        }
        gpu.with_caps(Caps { tuned: self.winners.clone(), ..gpu.caps().clone() })
    }

    /// Writes the winners, or removes the file where there are none.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn save(&self) -> std::io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        if !self.winners.is_empty() {
            return sealed::write(path, self.winners.write().as_bytes());
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
