//! The `girih` command as a user meets it: good input, and bad input that must give one clear error.

#[path = "command/bench_experts.rs"]
mod bench_experts;
#[path = "command/chat.rs"]
mod chat;
#[path = "command/experts.rs"]
mod experts;

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

/// A command with winners of its own: those of the suite stay none.
fn json_in(cache: &Folder, args: &[&str]) -> Value {
    let output = command(args).env("GIRIH_CACHE_DIR", &cache.0).output().expect("the command runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {error}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}: {output:?}"))
}

#[test]
fn tune_keeps_winners_and_forgets_them() {
    let cache = Folder::new("tune");
    // Much shorter than the built-in model's shapes take, so that some are left.
    let report = json_in(&cache, &["tune", "--seconds", "4", "--json"]);
    let (shapes, left) =
        (report["shapes"].as_array().expect("rows"), report["left"].as_array().expect("keys"));
    assert!(shapes.len() + left.len() >= 10, "{report}");
    let mut winners = 0;
    for row in shapes {
        assert!(row["winner_us"].as_f64() <= row["rule_us"].as_f64(), "{row}");
        assert_eq!((&row["wrong"], &row["before"]), (&serde_json::json!([]), &row["rule"]), "{row}");
        winners += u64::from(row["winner"] != row["rule"]);
    }
    assert_eq!(report["winners"], winners, "{report}");
    let explained = json_in(&cache, &["explain", "--json"]);
    let measured = |report: &Value| {
        let runs = report["runs"].as_array().expect("runs").iter();
        let all = runs.flat_map(|run| run["dispatches"].as_array().expect("dispatches").clone());
        all.filter(|d| d["why"] == "measured").count()
    };
    assert!(measured(&explained) as u64 <= winners);
    let reset = json_in(&cache, &["tune", "--reset", "--json"]);
    assert_eq!(reset["removed"], winners);
    assert_eq!(measured(&json_in(&cache, &["explain", "--json"])), 0);
    fails(&["tune", "--seconds=-1"], 4, &["--seconds", "-1"]);
    fails(&["tune", "no/such/model"], 3, &["no/such/model"]);
}

#[test]
fn explain_tells_the_dispatches_of_a_step_in_order() {
    let report = json(&["explain", "--json", "--keys", "100"]);
    let runs = report["runs"].as_array().expect("runs");
    assert_eq!(runs.iter().map(|run| run["times"].as_u64().unwrap_or(0)).collect::<Vec<_>>(), [1, 6, 1]);
    let names = |run: &Value| {
        let all = run["dispatches"].as_array().expect("dispatches").iter();
        all.map(|d| d["kernel"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&runs[0]), ["embedding"]);
    let layer = names(&runs[1]);
    let without_merge: Vec<&str> =
        layer.iter().map(String::as_str).filter(|n| *n != "attention_merge").collect();
    assert_eq!(without_merge, ["gemv", "rope_append", "attention_decode", "gemv", "gemv", "gemv"]);
    assert_eq!(names(&runs[2]), ["gemv", "argmax", "greedy_advance"]);
    let dispatches = runs.iter().flat_map(|run| {
        let times = run["times"].as_u64().unwrap_or(0);
        run["dispatches"].as_array().expect("dispatches").iter().map(move |d| (times, d))
    });
    let (mut count, mut bytes, mut flops) = (0, 0, 0);
    for (times, d) in dispatches {
        count += times;
        bytes += times * d["bytes"].as_u64().expect("bytes");
        flops += times * d["flops"].as_u64().expect("flops");
        assert!(["only", "rule"].contains(&d["why"].as_str().expect("why")), "{d}");
        assert!(d["variant"].as_str().is_some_and(|v| !v.is_empty()) && d["bytes"].as_u64() > Some(0), "{d}");
    }
    let totals = [count, bytes, flops].map(Value::from);
    assert_eq!(
        [&report["dispatches"], &report["bytes"], &report["flops"]],
        [&totals[0], &totals[1], &totals[2]]
    );
    // Each weight of the products once, two operations each; the tied table is the head's matrix.
    let weights = 6 * (512 * 256 + 256 * 256 + 1536 * 256 + 256 * 768) + 4096 * 256;
    let attention = 6 * 2 * 100 * 4 * (64 + 64);
    assert_eq!(flops, 2 * weights + attention);
    assert!(bytes > 2 * weights && bytes < 3 * weights, "{bytes}");
    let prompt = json(&["explain", "--json", "--rows", "64"]);
    assert!(prompt["flops"].as_u64() > Some(40 * flops), "{}", prompt["flops"]);
    fails(&["explain", "--rows", "100000"], 4, &["100000", "--context"]);
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
    assert_eq!(report["left_out_tokens"], serde_json::json!([0, 0]));
    // What does not fit is left out with a note, in the form that was asked for.
    let cut = [
        "embed",
        "--model",
        bert.to_str().expect("a path"),
        "--context",
        "4",
        "a",
        "one two three four five",
    ];
    let output = girih(&cut);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.starts_with("note: text 2 is longer"), "{said}");
    let output = girih(&[&cut[..], &["--json"]].concat());
    let note: Value = serde_json::from_slice(&output.stderr).expect("one object");
    assert!(note["note"].as_str().is_some_and(|n| n.contains("takes (4)")), "{note}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("one object");
    let left_out = report["left_out_tokens"][1].as_u64().expect("a number");
    assert!(left_out > 0 && said.contains(&format!("{left_out} of its {} tokens", left_out + 4)), "{said}");
    let report = json(&["doctor", "--json"]);
    assert_eq!(report["self_test"]["wrong"], serde_json::json!([]));
    let ceilings = &report["ceilings"];
    let positive = |value: &Value| value.as_f64().is_some_and(|rate| rate > 0.0);
    for name in ["f32_gflop_per_s", "int8_gop_per_s", "dispatch_us", "barrier_us"] {
        assert!(positive(&ceilings[name]), "{name}: {ceilings}");
    }
    let memory = ceilings["memory"].as_array().expect("sizes");
    let sets: Vec<u64> = memory.iter().filter_map(|m| m["set_mib"].as_u64()).collect();
    assert!(sets.len() == memory.len() && sets.len() >= 2 && sets.is_sorted(), "{ceilings}");
    for rate in ["read_gb_per_s", "write_gb_per_s", "copy_gb_per_s"] {
        assert!(memory.iter().all(|m| positive(&m[rate])), "{rate}: {ceilings}");
    }
    assert!(girih(&["doctor", "--probe"]).status.success());
    fs::write(&text, [0x66, 0xff, 0xfe]).expect("written");
    fails(&["eval", "--perplexity", text.to_str().expect("a path")], 3, &["story.txt"]);
    fs::write(&text, "").expect("written");
    fails(&["eval", "--perplexity", text.to_str().expect("a path")], 1, &["nothing to score"]);
}

/// Quantises a golden checkpoint, without comparing, and returns what is written.
fn quantized(args: &[&str], out: &Path) -> Value {
    let llama = goldens().join("models").join(LLAMA);
    let paths = [llama.to_str().expect("a path"), out.to_str().expect("a path")];
    json(&[&["quantize"], &paths[..], args, &["--no-eval", "--json"]].concat())
}

#[test]
fn quantize_lists_schemes() {
    let output = girih(&["quantize", "--scheme", "help"]);
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for scheme in girih_quantize::schemes() {
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(&scheme.name));
        assert!(line.is_some_and(|l| l.contains(&scheme.about)), "{}", scheme.name);
    }
    let list = json(&["quantize", "--scheme", "help", "--json"]);
    assert_eq!(list["schemes"].as_array().map(Vec::len), Some(girih_quantize::schemes().len()));
}

#[test]
fn quantize_writes_the_layout_that_kernels_read() {
    let folder = Folder::new("quantize");
    let (one, two) = (folder.0.join("one"), folder.0.join("two"));
    let text = folder.0.join("text.txt");
    fs::write(&text, "One and two are three, and three and four are seven. ".repeat(30)).expect("written");
    let args = ["--scheme", "w4a16-g32", "--calib", text.to_str().expect("a path")];
    let report = quantized(&args, &one);
    assert_eq!(report["resumed_steps"], 0);
    let report = &report["report"];
    assert_eq!(report["scheme"], "w4a16-g32");
    let modules = report["modules"].as_array().expect("modules");
    for module in modules {
        let db = |key: &str| module[key].as_f64().expect(key);
        assert!(db("weight_sqnr_db") > 15.0 && db("output_sqnr_db") > 10.0, "{module}");
    }
    // Config, tensors, copies of texts, and nothing of the run.
    let config: Value =
        serde_json::from_slice(&fs::read(one.join("config.json")).expect("a file")).expect("JSON");
    let quantization = &config["quantization_config"];
    assert_eq!(quantization["quant_method"], "girih");
    assert_eq!(quantization["version"], 1);
    assert_eq!(config["model_type"], "llama");
    let weights = fs::read(one.join("model.safetensors")).expect("a file");
    let tensors = safetensors::SafeTensors::deserialize(&weights).expect("a safetensors file");
    let source = fs::read(goldens().join("models").join(LLAMA).join("model.safetensors")).expect("a golden");
    let source = safetensors::SafeTensors::deserialize(&source).expect("a safetensors file");
    let mut matrices = 0;
    for (name, dense) in source.tensors() {
        let module = name.strip_suffix(".weight").unwrap_or(&name);
        let Some(entry) = quantization["modules"].get(module) else {
            assert_eq!(tensors.tensor(&name).expect(&name).data(), dense.data(), "{name} is as before");
            continue;
        };
        matrices += 1;
        assert!(tensors.tensor(&name).is_err(), "{name} is replaced");
        let format: girih::kernels::quant::Format =
            entry["format"].as_str().expect("a format").parse().expect("a format");
        let words = |suffix: &str| -> (Vec<usize>, Vec<u32>) {
            let tensor = tensors.tensor(&format!("{module}.{suffix}")).expect(suffix);
            assert_eq!(tensor.dtype(), safetensors::Dtype::U32);
            let words = tensor.data().as_chunks().0.iter().map(|&b| u32::from_le_bytes(b)).collect();
            (tensor.shape().to_vec(), words)
        };
        let ((shape, codes), (scale_shape, scales)) = (words("weight_codes"), words("weight_scales"));
        let [n, k] = [0, 1].map(|i| dense.shape()[i]);
        let (row, scale_row) = (format.code_words(k as u32) as usize, format.scale_words(k as u32) as usize);
        assert_eq!((shape, scale_shape), (vec![n, row], vec![n, scale_row]));
        // The values are near those of the dense matrix.
        let want: Vec<f32> = dense.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
        let (mut noise, mut signal) = (0.0, 0.0);
        for i in 0..n {
            let codes = &codes[i * row..][..row];
            let scales = &scales[i * scale_row..][..scale_row];
            let got = girih::kernels::quant::unpack_row(format, k as u32, codes, scales).values(format);
            for (got, &want) in got.iter().zip(&want[i * k..]) {
                noise += (got - f64::from(want)).powi(2);
                signal += f64::from(want).powi(2);
            }
        }
        let db = 10.0 * (signal / noise).log10();
        let module = modules.iter().find(|m| m["name"] == module).expect("in the report");
        assert!((db - module["weight_sqnr_db"].as_f64().expect("a number")).abs() < 0.01, "{db}: {module}");
    }
    assert_eq!((matrices, modules.len()), (21, 21));
    let names = |dir: &Path| -> Vec<String> {
        let entries = fs::read_dir(dir).expect("a folder").map(|e| e.expect("an entry").file_name());
        let mut names: Vec<String> = entries.map(|n| n.into_string().expect("a name")).collect();
        names.sort();
        names
    };
    for name in ["tokenizer.json", "tokenizer_config.json", "quantize-report.json", "quantize-report.html"] {
        assert!(names(&one).contains(&name.to_owned()), "{:?}", names(&one));
    }
    let run = |n: &String| n == "parts" || n.starts_with('.') || n.starts_with("unfinished");
    assert!(!names(&one).iter().any(run), "{:?}", names(&one));
    assert_eq!(names(&folder.0), ["one", "text.txt"]);
    // The same again: the same bytes.
    quantized(&args, &two);
    assert_eq!(fs::read(two.join("model.safetensors")).expect("a file"), weights);
    // So does a run that takes one matrix at a time.
    quantized(&[&args[..], &["--memory", "1e-6", "--force"]].concat(), &two);
    assert!(fs::read(two.join("model.safetensors")).expect("a file") == weights);
    // A report can be made without statistics.
    let out = folder.0.join("three");
    let report = quantized(&["--scheme", "w8a16"], &out);
    assert!(report["report"]["modules"][0]["output_sqnr_db"].is_null());
    assert!(report["report"]["calibration"].is_null());
    // What is quantised is not quantised again, and not overwritten by accident.
    let [one, out] = [&one, &out].map(|p| p.to_str().expect("a path"));
    let again = folder.0.join("four");
    fails(
        &["quantize", one, again.to_str().expect("a path"), "--scheme", "w4a16"],
        3,
        &["quantised already", "girih"],
    );
    assert!(!again.exists());
    fails(&["quantize", "fable-5m", out, "--scheme", "w4a16"], 4, &["exists", "--force"]);
    let report = quantized(&["--scheme", "w4a16", "--force"], Path::new(out));
    assert_eq!(report["report"]["scheme"], "w4a16");
    assert_eq!(names(&folder.0), ["one", "text.txt", "three", "two"]);
}

#[test]
fn an_interrupted_quantization_goes_on() {
    let folder = Folder::new("interrupted");
    let [out, partial, reference] = ["out", "out.partial", "reference"].map(|name| folder.0.join(name));
    let args = |out: &Path, scheme: &str| {
        let out = out.to_str().expect("a path");
        ["quantize", "fable-5m", out, "--scheme", scheme, "--no-eval", "--json"].map(str::to_owned)
    };
    let run = |args: &[String; 7]| json(&args.each_ref().map(String::as_str));
    run(&args(&reference, "w4a16-mse"));
    let arguments = args(&out, "w4a16-mse");
    let mut child = command(&arguments.each_ref().map(String::as_str))
        .stdout(Stdio::null())
        .spawn()
        .expect("the command runs");
    while !partial.join("parts/00003.safetensors").exists() {
        assert!(child.try_wait().expect("a state").is_none(), "ended before it was interrupted");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    child.kill().expect("killed");
    child.wait().expect("ends");
    assert!(partial.exists() && !out.exists(), "nothing has the final name");
    // Another scheme does not mix with it.
    let other = args(&out, "w8a16");
    fails(&other.each_ref().map(String::as_str), 4, &["unfinished", "w4a16-mse", "w8a16", "--restart"]);
    let report = run(&arguments);
    assert!(report["resumed_steps"].as_u64().is_some_and(|n| (3..24).contains(&n)), "{report}");
    let weights = |dir: &Path| fs::read(dir.join("model.safetensors")).expect("a file");
    assert!(weights(&out) == weights(&reference), "resumed and not: the same bytes");
    assert!(!partial.exists());
}

#[test]
fn a_quantised_model_is_near_the_dense_one() {
    let folder = Folder::new("near");
    let out = folder.0.join("out");
    let path = out.to_str().expect("a path");
    let report = json(&["quantize", "fable-5m", path, "--scheme", "w8a16", "--json"]);
    let evaluation = &report["report"]["evaluation"];
    let number = |key: &str| evaluation[key].as_f64().expect(key);
    assert!((number("perplexity_ratio") - 1.0).abs() < 0.01, "{evaluation}");
    assert!((0.0..0.005).contains(&number("kl_per_token")), "{evaluation}");
    assert!(number("same_top_token") > 0.95, "{evaluation}");
    let args = ["generate", "--model", path, "--prompt", "Once upon a time", "--max-tokens", "12"];
    let text = json(&[&args[..], &["--temperature", "0", "--json"]].concat());
    assert_eq!(text["text"], ", there was a merry puppy named Ralph. He lived in");
    // It is not dense any more.
    fails(&["bench", "quality", "--model", path, "--text", path], 3, &["quantised already"]);
    // Encoders too, with an embedding near the one before.
    let bert = goldens().join("models/bert_mean_pool");
    let bert = bert.to_str().expect("a path");
    let small = folder.0.join("bert");
    let small = small.to_str().expect("a path");
    json(&["quantize", bert, small, "--scheme", "w8a16-g32", "--json"]);
    let embed = |model: &str| -> Vec<f64> {
        let report = json(&["embed", "--model", model, "--json", "Hello world"]);
        report["embeddings"][0].as_array().expect("a vector").iter().filter_map(Value::as_f64).collect()
    };
    let similarity: f64 = embed(bert).iter().zip(&embed(small)).map(|(a, b)| a * b).sum();
    assert!(similarity > 0.99, "{similarity}");
    // The table of schemes.
    let text = folder.0.join("text.txt");
    fs::write(&text, "Once upon a time, there was a merry puppy named Ralph. ".repeat(4)).expect("written");
    let table = folder.0.join("table.md");
    let [text, table_path] = [&text, &table].map(|p| p.to_str().expect("a path"));
    let args = ["bench", "quality", "--text", text, "--calib", text, "--schemes", "w8a16,w4a16"];
    let report = json(&[&args[..], &["--markdown", table_path, "--json"]].concat());
    let ratio = |i: usize| report["schemes"][i]["texts"][0]["kl_per_token"].as_f64().expect("a number");
    assert!(ratio(0) < ratio(1), "8 bits are nearer than 4: {report}");
    assert!(fs::read_to_string(&table).expect("a table").contains("| w4a16 |"));
    fails(&["bench", "quality", "--text", text, "--schemes", "w9"], 4, &["w9"]);
    fails(&["bench", "quality", "--text", text, "--weights", "int4"], 4, &["--weights", "as it is stored"]);
    let gguf = goldens().join("ops/tiny.gguf");
    let gguf = gguf.to_str().expect("a path");
    fails(&["bench", "quality", "--text", text, "--model", gguf], 3, &["is GGUF"]);
}

#[test]
fn rotated_inputs_and_integer_activations_are_near_the_dense_model() {
    let folder = Folder::new("rotated");
    for scheme in ["w4a8-hadamard", "w4a8-flat-free-gptq"] {
        let out = folder.0.join(scheme);
        let path = out.to_str().expect("a path");
        let args = ["quantize", "fable-5m", path, "--scheme", scheme, "--calib-tokens", "2048", "--json"];
        let report = json(&args);
        let evaluation = &report["report"]["evaluation"];
        let number = |key: &str| evaluation[key].as_f64().expect(key);
        assert!((0.9..1.2).contains(&number("perplexity_ratio")), "{scheme}: {evaluation}");
        assert!((0.0..0.1).contains(&number("kl_per_token")), "{scheme}: {evaluation}");
        let module = &report["report"]["modules"][0];
        assert_eq!(module["transform"], "Hadamard, row", "{module}");
        assert!(module["activation"].as_str().is_some_and(|a| a.starts_with("int8-token")), "{module}");
        assert_eq!(report["report"]["notes"], serde_json::json!([]));
        let args = ["generate", "--model", path, "--prompt", "Once upon a time", "--max-tokens", "4"];
        let text = json(&[&args[..], &["--temperature", "0", "--json"]].concat());
        assert_eq!(text["text"], ", there was a");
    }
}

#[test]
fn pieces_of_two_models_do_not_mix() {
    let dense = Folder::new("dense");
    let fable = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/fable-5m");
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(fable.join(file), dense.0.join(file)).expect("a copy");
    }
    // A file that is called as one of the run might be.
    fs::write(dense.0.join("manifest.json"), "theirs").expect("written");
    let folder = Folder::new("mixed");
    let [out, partial] = ["out", "out.partial"].map(|name| folder.0.join(name));
    let out = out.to_str().expect("a path");
    let args = ["quantize", dense.path(), out, "--scheme", "w4a16-mse", "--no-eval", "--json"];
    let mut child = command(&args).stdout(Stdio::null()).spawn().expect("the command runs");
    while !partial.join("parts/00001.safetensors").exists() {
        assert!(child.try_wait().expect("a state").is_none(), "ended before it was interrupted");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    child.kill().expect("killed");
    child.wait().expect("ends");
    // Weights of the same shapes, one of them of the other sign.
    dense.edit("model.safetensors", |mut bytes| {
        *bytes.last_mut().expect("a weight") ^= 0x80;
        bytes
    });
    fails(&args, 4, &["unfinished", "checkpoint", "--restart"]);
    let report = json(&[&args[..], &["--restart"]].concat());
    assert_eq!(report["resumed_steps"], 0);
    let manifest = fs::read_to_string(Path::new(out).join("manifest.json")).expect("a file");
    assert_eq!(manifest, "theirs");
}

#[test]
fn quantize_refuses_what_makes_no_sense() {
    let folder = Folder::new("quantize-bad");
    let out = folder.0.join("out");
    let out = out.to_str().expect("a path");
    fails(&["quantize", "fable-5m", out, "--scheme", "w3a16"], 4, &["w3a16", "w4a16", "help"]);
    fails(&["quantize", "fable-5m", "--scheme", "w4a16"], 4, &["IN OUT"]);
    fails(&["quantize", "fable-5m", out], 4, &["--scheme"]);
    fails(&["quantize", "/no/such/folder", out, "--scheme", "w4a16"], 3, &["config.json"]);
    let gguf = goldens().join("ops/tiny.gguf");
    let args = ["quantize", gguf.to_str().expect("a path"), out, "--scheme", "w4a16"];
    fails(&args, 3, &["tiny.gguf", "is GGUF"]);
    fails(&["quantize", "fable-5m", out, "--scheme", "w4a16", "--memory", "0"], 4, &["--memory"]);
    fs::write(folder.0.join("short.txt"), "Too short.").expect("written");
    let short = folder.0.join("short.txt");
    let short = short.to_str().expect("a path");
    fails(&["quantize", "fable-5m", out, "--scheme", "w4a16", "--calib", short], 3, &["short.txt", "16"]);
    let gptq = Folder::checkpoint("gptq", LLAMA);
    gptq.edit_json("config.json", |c| {
        c["quantization_config"] = serde_json::json!({ "quant_method": "gptq" });
    });
    fails(&["quantize", gptq.path(), out, "--scheme", "w4a16"], 3, &["quantised already", "gptq"]);
    fs::create_dir(out).expect("a folder");
    fs::write(Path::new(out).join("precious"), "x").expect("written");
    fails(&["quantize", "fable-5m", out, "--scheme", "w4a16", "--force"], 4, &["not replaced"]);
    assert!(Path::new(out).join("precious").exists());
}

#[test]
fn eval_compares_with_a_reference() {
    let folder = Folder::new("compare");
    let text = folder.0.join("story.txt");
    fs::write(&text, "Once upon a time, there was a merry puppy named Ralph. He lived in a forest.")
        .expect("written");
    let fable = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/fable-5m");
    let [text, fable] = [&text, &fable].map(|p| p.to_str().expect("a path"));
    let same = json(&["eval", "--perplexity", text, "--reference", fable, "--json"]);
    assert_eq!(same["perplexity"], same["reference"]["perplexity"]);
    assert_eq!(same["kl_per_token"].as_f64(), Some(0.0));
    assert_eq!(same["same_top_token"].as_f64(), Some(1.0));
    // f16 holds these bf16 weights but for the smallest.
    let near = json(&["eval", "--perplexity", text, "--reference", fable, "--weights", "f16", "--json"]);
    assert!(near["kl_per_token"].as_f64().is_some_and(|kl| kl.abs() < 1e-4), "{near}");
    let alone = json(&["eval", "--perplexity", text, "--json"]);
    let difference =
        alone["perplexity"].as_f64().expect("a number") / same["perplexity"].as_f64().expect("a number");
    assert!((difference - 1.0).abs() < 1e-6);
    let llama = goldens().join("models").join(LLAMA);
    let args = ["eval", "--perplexity", text, "--reference", llama.to_str().expect("a path")];
    fails(&args, 4, &["different tokens"]);
}

#[test]
fn bad_arguments_are_refused() {
    fails(&["generate"], 4, &["--prompt"]);
    fails(&["generate", "--prompt", "x", "--tier", "t9"], 4, &["t9", "t0"]);
    fails(&["generate", "--prompt", "x", "--temperature", "-1"], 4, &["-1"]);
    fails(&["generate", "--prompt", "x", "--temperature=-1"], 4, &["temperature", "-1"]);
    fails(&["generate", "--prompt", "x", "--top-p", "1.5"], 4, &["top_p", "1.5"]);
    fails(&["doctor", "--adapter", "no such adapter"], 2, &["no such adapter", "there are"]);
    fails(&["doctor", "--tier", "t2"], 4, &["t2", "no kernels", "t0, t1, t4"]);
    fails(&["generate", "--prompt", "x", "--context", "1000000"], 4, &["1000000", "512"]);
    let long = "fox ".repeat(2000);
    fails(&["generate", "--prompt", &long], 4, &["512", "tokens"]);
    fails(&["bench", "model", "--synthetic", "llama-9t"], 4, &["llama-9t", "llama-3.2-1b"]);
    fails(&["bench", "model", "-p", "9999"], 4, &["9999"]);
    let bert = goldens().join("models/bert_mean_pool");
    fails(
        &["generate", "--model", bert.to_str().expect("a path"), "--prompt", "x"],
        4,
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
    let commands = [
        "generate",
        "chat",
        "embed",
        "eval",
        "logits",
        "quantize",
        "inspect",
        "doctor",
        "tune",
        "explain",
        "bench model",
        "bench kernels",
        "bench quality",
    ];
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
    refuses("missing", LLAMA, &["no weights", "model.safetensors"], |f| {
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
