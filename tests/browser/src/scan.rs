//! Reading test files as text: which tests run on a device, which files they read.

/// A test on a device.
#[derive(Debug, PartialEq, Eq)]
pub struct OnDevice {
    /// Name of the function.
    pub name: String,
    /// Beginnings of the paths that it reads.
    pub files: Vec<String>,
}

/// The functions of a file that have the attribute `on_device`.
///
/// # Errors
/// An attribute that no `async fn` follows.
pub fn tests(text: &str) -> Result<Vec<OnDevice>, String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("\n#[on_device") {
        rest = &rest[at + "\n#[on_device".len()..];
        let (arguments, after) = rest.split_once(']').ok_or("an attribute without an end")?;
        let function = after.trim_start().strip_prefix("async fn ").ok_or("on_device without `async fn`")?;
        let name = function.split('(').next().unwrap_or_default().to_owned();
        let files = arguments.split('"').skip(1).step_by(2).map(str::to_owned).collect();
        found.push(OnDevice { name, files });
    }
    Ok(found)
}

/// Whether `start` is the path of a folder that the file is in, or its path up to an extension or a whole one.
pub fn begins(file: &str, start: &str) -> bool {
    file.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '.']))
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn attributes_are_read() {
        let text = "use a;\n\n/// Doc.\n#[on_device(\"goldens/ops/a\", \"assets/b\")]\nasync fn one(gpu: Gpu) {}\n\
            #[test]\nfn native() {}\n#[on_device]\nasync fn two(_: Gpu) {}\n";
        let test = |name: &str, files: &[&str]| OnDevice {
            name: name.into(),
            files: files.iter().map(ToString::to_string).collect(),
        };
        assert_eq!(tests(text), Ok(vec![test("one", &["goldens/ops/a", "assets/b"]), test("two", &[])]));
        assert!(tests("\n#[on_device]\nfn three() {}").is_err());
    }

    #[test]
    fn a_path_begins_at_a_border() {
        assert!(begins("goldens/ops/rope.json", "goldens/ops/rope"));
        assert!(begins("goldens/models/qwen3/config.json", "goldens/models/qwen3"));
        assert!(!begins("goldens/models/qwen3_embedding/config.json", "goldens/models/qwen3"));
    }

    /// What the build script does not find would never run in a browser.
    #[test]
    fn every_test_on_a_device_is_found() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests");
        let (mut named, mut found) = (0, 0);
        for entry in std::fs::read_dir(dir).expect("the folder of tests") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                continue;
            }
            let text = std::fs::read_to_string(path).expect("a file");
            named += text.lines().filter(|line| line.trim_start().starts_with("#[on_device")).count();
            found += tests(&text).expect("reads").len();
        }
        assert!(found > 40, "{found} tests");
        assert_eq!(named, found);
    }
}
