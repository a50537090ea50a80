//! The `girih` command as a user meets it: good input, and bad input that must give one clear error.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

/// A folder of this test run, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    /// A copy of a golden checkpoint.
    fn checkpoint(name: &str, model: &str) -> Self {
        let folder = Self::new(name);
        for entry in fs::read_dir(goldens().join("models").join(model)).expect("a golden") {
            let entry = entry.expect("an entry");
            if entry.path().is_file() {
                fs::copy(entry.path(), folder.0.join(entry.file_name())).expect("a copy");
            }
        }
        folder
    }

    fn edit(&self, file: &str, edit: impl FnOnce(Vec<u8>) -> Vec<u8>) {
        let path = self.0.join(file);
        let bytes = fs::read(&path).expect("a file");
        fs::write(path, edit(bytes)).expect("written");
    }

    fn edit_json(&self, file: &str, edit: impl FnOnce(&mut Value)) {
        self.edit(file, |bytes| {
            let mut value = serde_json::from_slice(&bytes).expect("JSON");
            edit(&mut value);
            serde_json::to_vec(&value).expect("JSON")
        });
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a path")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn girih(args: &[&str]) -> Output {
    command(args).output().expect("the command runs")
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_girih"));
    // Verdicts of the self-test are shared by all runs of the suite.
    command.args(args).env("GIRIH_CACHE_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"));
    command
}

fn json(args: &[&str]) -> Value {
    let output = girih(args);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {error}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}: {output:?}"))
}

/// The command fails with this exit code, with one error that holds all of `words`, and without a panic.
fn fails(args: &[&str], code: i32, words: &[&str]) {
    let output = girih(args);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
    assert!(!error.contains("panicked"), "{args:?}: {error}");
    assert_eq!(error.matches("error").count().min(1), 1, "{args:?}: {error}");
    for word in words {
        assert!(error.contains(word), "{args:?}: no {word:?} in: {error}");
    }
}

#[test]
fn generate_streams_the_built_in_story() {
    let args = ["generate", "--prompt", "Once upon a time", "--max-tokens", "12", "--temperature", "0"];
    let output = girih(&args);
    assert!(output.status.success());
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "Once upon a time, there was a merry puppy named Ralph. He lived in\n"
    );
    let report = json(&[&args[..], &["--json"]].concat());
    assert_eq!(report["text"], ", there was a merry puppy named Ralph. He lived in");
    assert_eq!(report["token_ids"].as_array().map(Vec::len), Some(12));
    assert_eq!(report["finish_reason"], "length");
    assert!(report["dispatches_per_token"].as_u64().is_some_and(|n| (1..=47).contains(&n)), "{report}");
    assert!(report["timings"]["decode_seconds"].as_f64().is_some_and(|s| s > 0.0));
}

#[test]
fn the_same_seed_gives_the_same_text_and_another_seed_another() {
    let run = |seed: &str| {
        let args =
            ["generate", "--prompt", "The little fox", "--max-tokens", "24", "--temperature", "1", "--json"];
        json(&[&args[..], &["--top-p", "1", "--seed", seed]].concat())["token_ids"].clone()
    };
    assert_eq!(run("7"), run("7"));
    assert_ne!(run("7"), run("8"));
}

#[test]
fn chat_answers_every_line_and_reuses_the_prefix() {
    let mut child = command(&["chat", "--json", "--max-tokens", "8", "--temperature", "0"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the command runs");
    let mut input = child.stdin.take().expect("a pipe");
    // The second message holds a NUL and characters of many bytes.
    input.write_all("Tell me a story about a fox.\nAnd \0 of a größere 狐?\n".as_bytes()).expect("written");
    drop(input);
    let output = child.wait_with_output().expect("ends");
    assert!(output.status.success());
    let answers: Vec<Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(answers.len(), 2);
    assert_eq!(answers[0]["text"], "Once upon a time, there was a");
    assert!(answers[1]["cached_tokens"].as_u64() > answers[0]["prompt_tokens"].as_u64());
}

#[test]
fn logits_are_written_whole_or_not_at_all() {
    let folder = Folder::new("logits");
    let file = folder.0.join("out.safetensors");
    let out = file.to_str().expect("a path");
    json(&["logits", "--ids", "0,5,9", "--out", out, "--layers", "--json"]);
    let bytes = fs::read(&file).expect("written");
    let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("a safetensors file");
    assert_eq!(tensors.tensor("logits").expect("logits").shape(), [3, 4096]);
    for name in ["hidden.embed", "hidden.layer0", "hidden.layer5"] {
        assert_eq!(tensors.tensor(name).expect(name).shape(), [3, 256]);
    }
    // The CPU twins of all kernels give the same numbers, up to rounding.
    json(&["logits", "--ids", "0,5,9", "--out", out, "--reference", "--json"]);
    let reference = fs::read(&file).expect("written");
    let reference = safetensors::SafeTensors::deserialize(&reference).expect("a safetensors file");
    let values = |tensors: &safetensors::SafeTensors<'_>| -> Vec<f32> {
        let logits = tensors.tensor("logits").expect("logits");
        logits.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
    };
    let (got, want) = (values(&tensors), values(&reference));
    assert_ne!(got, want, "two ways of computing round differently");
    assert!(got.iter().zip(&want).all(|(g, w)| (g - w).abs() < 1e-3));
    let missing = folder.0.join("no/such/folder/out.safetensors");
    fails(&["logits", "--ids", "1", "--out", missing.to_str().expect("a path")], 3, &["No such file"]);
    fails(&["logits", "--ids", "4096", "--out", out], 4, &["4096", "below 4096"]);
    fails(&["logits", "--ids", "1,x", "--out", out], 4, &["--ids"]);
    assert_eq!(fs::read_dir(&folder.0).expect("a folder").count(), 1, "nothing half-written is left");
}

#[test]
fn eval_inspect_embed_and_doctor_report() {
    let folder = Folder::new("eval");
    let text = folder.0.join("story.txt");
    fs::write(&text, "Once upon a time, there was a merry puppy named Ralph. He lived in a forest.")
        .expect("written");
    let report = json(&["eval", "--perplexity", text.to_str().expect("a path"), "--json"]);
    assert!(report["perplexity"].as_f64().is_some_and(|p| (1.0..60.0).contains(&p)), "{report}");
    assert!(report["tokens"].as_u64().is_some_and(|n| n > 10));
    let report = json(&["inspect", "--json"]);
    assert_eq!(report["parameters"], 5_770_496);
    let bert = goldens().join("models/bert_mean_pool");
    let report = json(&["embed", "--model", bert.to_str().expect("a path"), "--json", "Hello world", "a"]);
    assert_eq!(report["embeddings"].as_array().map(Vec::len), Some(2));
    let report = json(&["doctor", "--json"]);
    assert_eq!(report["self_test"]["wrong"], serde_json::json!([]));
    assert!(report["copy_gb_per_s"].as_f64().is_some_and(|b| b > 0.0));
    assert!(girih(&["doctor", "--probe"]).status.success());
    fs::write(&text, [0x66, 0xff, 0xfe]).expect("written");
    fails(&["eval", "--perplexity", text.to_str().expect("a path")], 3, &["story.txt"]);
    fs::write(&text, "").expect("written");
    fails(&["eval", "--perplexity", text.to_str().expect("a path")], 1, &["nothing to score"]);
}

#[test]
fn bad_arguments_are_refused() {
    fails(&["generate"], 4, &["--prompt"]);
    fails(&["generate", "--prompt", "x", "--tier", "t9"], 4, &["t9", "t0"]);
    fails(&["generate", "--prompt", "x", "--temperature", "-1"], 4, &["-1"]);
    fails(&["generate", "--prompt", "x", "--temperature=-1"], 4, &["temperature", "-1"]);
    fails(&["generate", "--prompt", "x", "--top-p", "1.5"], 4, &["top_p", "1.5"]);
    fails(&["doctor", "--adapter", "no such adapter"], 2, &["no such adapter", "there are"]);
    fails(&["doctor", "--tier", "t2"], 4, &["t2"]);
    fails(&["generate", "--prompt", "x", "--context", "1000000"], 4, &["1000000", "512"]);
    let long = "fox ".repeat(2000);
    fails(&["generate", "--prompt", &long], 4, &["512", "tokens"]);
    fails(&["bench", "model", "--synthetic", "llama-9t"], 4, &["llama-9t", "llama-3.2-1b"]);
    fails(&["bench", "model", "-p", "9999"], 4, &["9999"]);
    let bert = goldens().join("models/bert_mean_pool");
    fails(
        &["generate", "--model", bert.to_str().expect("a path"), "--prompt", "x"],
        1,
        &["encoder", "girih embed"],
    );
    fails(
        &["chat", "--model", goldens().join("models/cohere").to_str().expect("a path")],
        4,
        &["chat template"],
    );
}

#[test]
fn the_manual_lists_every_option() {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/command.md");
    let manual = fs::read_to_string(manual).expect("the manual");
    let commands =
        ["generate", "chat", "embed", "eval", "logits", "inspect", "doctor", "bench model", "bench kernels"];
    let mut options = 0;
    for command in commands {
        assert!(manual.contains(&format!("\n## {command}\n")), "no section {command}");
        let args: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let help = String::from_utf8_lossy(&girih(&args).stdout).into_owned();
        let declared = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
        let words = declared
            .flat_map(|line| line.split([' ', ',']).take_while(|w| w.is_empty() || w.starts_with('-')));
        for option in words.map(|w| w.trim_end_matches("...")).filter(|w| w.starts_with('-')) {
            options += 1;
            let ends = ["`", " "].map(|end| format!("`{option}{end}"));
            assert!(ends.iter().any(|e| manual.contains(e)), "{command}: {option} is not in the manual");
        }
    }
    assert!(options > 60, "{options} options were found");
    let top = String::from_utf8_lossy(&girih(&["--help"]).stdout).into_owned();
    let listed = top.lines().skip_while(|l| *l != "Commands:").skip(1).take_while(|l| !l.is_empty());
    let names: Vec<&str> =
        listed.filter(|l| !l.starts_with("   ")).filter_map(|l| l.split_whitespace().next()).collect();
    assert!(names.len() > 7, "{names:?}");
    for name in names.iter().filter(|name| **name != "help") {
        assert!(commands.iter().any(|c| c.split(' ').next() == Some(name)), "{name} has no section");
    }
}

#[test]
fn a_cache_folder_that_cannot_be_written_changes_nothing() {
    let folder = Folder::new("cache");
    let file = folder.0.join("a-file");
    fs::write(&file, "not a folder").expect("written");
    let output = command(&["generate", "--prompt", "Once", "--max-tokens", "2", "--temperature", "0"])
        .env("GIRIH_CACHE_DIR", file.join("below"))
        .output()
        .expect("the command runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A broken checkpoint is refused with a message that holds `words`.
fn refuses(name: &str, model: &str, words: &[&str], break_it: impl FnOnce(&Folder)) {
    let folder = Folder::checkpoint(name, model);
    break_it(&folder);
    fails(
        &["logits", "--model", folder.path(), "--ids", "1,2", "--out", &format!("{}/o", folder.path())],
        3,
        words,
    );
}

const LLAMA: &str = "llama_llama3rope";

#[test]
fn broken_weights_are_refused() {
    let weights = "model.safetensors";
    refuses("truncated", LLAMA, &["model.safetensors"], |f| f.edit(weights, |b| b[..b.len() / 2].to_vec()));
    refuses("tiny", LLAMA, &["model.safetensors"], |f| f.edit(weights, |b| b[..4].to_vec()));
    refuses("empty", LLAMA, &["model.safetensors"], |f| f.edit(weights, |_| Vec::new()));
    refuses("lying", LLAMA, &["header"], |f| {
        f.edit(weights, |b| [&u64::MAX.to_le_bytes()[..], &b[8..]].concat());
    });
    refuses("garbage", LLAMA, &["model.safetensors"], |f| {
        f.edit(weights, |mut b| {
            b[8..40].fill(b'x');
            b
        });
    });
    refuses("nan", LLAMA, &["NaN", "element"], |f| {
        f.edit(weights, |mut b| {
            let end = b.len();
            b[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
            b
        });
    });
    refuses("missing", LLAMA, &["no such file"], |f| {
        fs::remove_file(f.0.join(weights)).expect("removed");
    });
    refuses("shard", "llama_mha_bf16_sharded", &["model-00003-of-00005.safetensors"], |f| {
        fs::remove_file(f.0.join("model-00003-of-00005.safetensors")).expect("removed");
    });
}

#[test]
fn broken_configurations_are_refused() {
    let set = |field: &'static str, value: Value| {
        move |f: &Folder| f.edit_json("config.json", |c| c[field] = value)
    };
    refuses(
        "layers",
        LLAMA,
        &["num_hidden_layers", "1000000000000"],
        set("num_hidden_layers", 1_000_000_000_000u64.into()),
    );
    refuses("more", LLAMA, &["layers.3"], set("num_hidden_layers", 9.into()));
    refuses("type", LLAMA, &["no_such_model", "llama"], set("model_type", "no_such_model".into()));
    refuses("heads", LLAMA, &["num_attention_heads", "0"], set("num_attention_heads", 0.into()));
    refuses("negative", LLAMA, &["hidden_size", "-64"], set("hidden_size", (-64).into()));
    refuses("shape", LLAMA, &["shape"], set("intermediate_size", 100.into()));
    refuses("act", LLAMA, &["hidden_act", "swish9"], set("hidden_act", "swish9".into()));
    refuses("vocab", LLAMA, &["vocab"], set("vocab_size", 300.into()));
    refuses("json", LLAMA, &["config.json"], |f| f.edit("config.json", |b| b[..20].to_vec()));
    refuses("tokenizer", LLAMA, &["tokenizer.json"], |f| f.edit("tokenizer.json", |b| b[..50].to_vec()));
    fails(&["inspect", "/no/such/folder"], 3, &["config.json"]);
}
