//! `cargo xtask accuracy`: the table of what each scheme of quantisation costs the built-in model, and others.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{process, setup, source};

/// Texts of the goldens: key in `golden.json`, name in the table.
const TEXTS: [(&str, &str); 2] = [("perplexity", "books"), ("perplexity_synthetic", "stories")];

/// Scores every scheme on the built-in model and on the checkpoint folders in `models`, and writes
/// `docs/benchmarks/accuracy-MODEL.md` for each.
///
/// # Errors
/// A build that fails, goldens that cannot be read.
pub fn run(models: &[&str]) -> Result<bool, String> {
    let program = process::build_program("girih")?;
    setup::ensure_adapter(&program, setup::Options::default())?;
    let root = source::root();
    let golden = read(&root.join("tests/goldens/trained/fable-5m/golden.json"))?;
    let folder = process::target_dir()?.join("accuracy");
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut texts = Vec::new();
    for (key, name) in TEXTS {
        let text = text_of(&golden, key).ok_or_else(|| format!("golden.json has no text of {key}"))?;
        let path = folder.join(format!("{name}.txt"));
        std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
        texts.push(path);
    }
    let mut succeeded = true;
    for model in std::iter::once(None).chain(models.iter().map(|m| Some(Path::new(m)))) {
        let name = model.map_or("fable-5m".into(), |m| m.file_name().unwrap_or_default().to_string_lossy());
        let table = root.join(format!("docs/benchmarks/accuracy-{name}.md"));
        let mut command = Command::new(&program);
        command.args(["bench", "quality", "--markdown"]).arg(&table);
        for text in &texts {
            command.arg("--text").arg(text);
        }
        if let Some(model) = model {
            command.arg("--model").arg(model);
        }
        let status = command.status().map_err(|e| format!("{}: {e}", program.display()))?;
        succeeded &= status.success();
        if status.success() {
            let page = format!(
                "# Accuracy of quantised {name}\n\nWritten by `cargo xtask accuracy`. {}",
                read(&table)?
            );
            std::fs::write(&table, page).map_err(|e| format!("{}: {e}", table.display()))?;
        }
    }
    Ok(succeeded)
}

fn read(path: &PathBuf) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// The string `text` of the object `key`, without a JSON parser: ours has no dependencies.
fn text_of(json: &str, key: &str) -> Option<String> {
    let object = json.split_once(&format!("\"{key}\":"))?.1;
    let value = object.split_once("\"text\":")?.1.trim_start().strip_prefix('"')?;
    let (mut text, mut chars) = (String::new(), value.chars());
    loop {
        match chars.next()? {
            '"' => return Some(text),
            '\\' => text.push(match chars.next()? {
                'n' => '\n',
                't' => '\t',
                'u' => {
                    let digits: String = chars.by_ref().take(4).collect();
                    char::from_u32(u32::from_str_radix(&digits, 16).ok()?)?
                }
                c => c,
            }),
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_read() {
        let json = r#"{"other": {"text": "no"}, "a": {"n": 1, "text": "one\n\"two\" \u00e9\\"}}"#;
        assert_eq!(text_of(json, "a").as_deref(), Some("one\n\"two\" é\\"));
        assert_eq!(text_of(json, "b"), None);
        let golden =
            read(&source::root().join("tests/goldens/trained/fable-5m/golden.json")).expect("a file");
        for (key, _) in TEXTS {
            assert!(text_of(&golden, key).is_some_and(|text| text.len() > 5000), "{key}");
        }
    }
}
