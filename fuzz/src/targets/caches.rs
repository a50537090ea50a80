//! What girih keeps between runs: the pipeline cache, verdicts of the self-test.

use girih_kernels::{sealed, selftest};

use super::Target;

/// A sealed file: as the pipeline cache opens it, as the self-test does.
pub const CACHES: Target = Target {
    name: "caches",
    only: Some("cache"),
    words: &["girih", "right gemv/t0\n", "wrong rms_norm/t1\n"],
    run: |input| {
        let bytes = input.file("cache").unwrap_or_default();
        // What is sealed comes back whole; with any other bytes, only intact files are opened.
        if sealed::open(&sealed::seal(bytes)).ok() != Some(bytes) {
            return Err("a sealed file does not open".into());
        }
        if let Ok(content) = sealed::open(bytes)
            && sealed::seal(content) != bytes
        {
            return Err("a file that was not sealed opens".into());
        }
        let content = [bytes, sealed::open(bytes).unwrap_or_default()];
        for content in content {
            if let Some(verdicts) = selftest::read_verdict(content)
                && selftest::write_verdict(&verdicts) != content
            {
                return Err("a verdict that was not written is read".into());
            }
        }
        Ok(())
    },
};
