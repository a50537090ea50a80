//! A newcomer's talk: what does not fit, what is interrupted, models that say nothing of how to talk with them.

use std::io::{BufRead, BufReader};

use super::*;

/// `girih chat` with these messages; answers are JSON.
fn chat(args: &[&str], messages: &str) -> Output {
    let mut child = command(&[&["chat", "--json"], args].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command runs");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(messages.as_bytes()).expect("written");
    drop(input);
    child.wait_with_output().expect("ends")
}

fn answers(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// A random model that knows no template, and whose files say nothing of sampling.
fn plain(name: &str) -> Folder {
    let folder = Folder::checkpoint(name, LLAMA);
    fs::remove_file(folder.0.join("generation_config.json")).expect("removed");
    folder.edit_json("tokenizer_config.json", |c| {
        c.as_object_mut().expect("an object").remove("chat_template");
    });
    folder.edit_json("config.json", |c| c["max_position_embeddings"] = 16_384.into());
    folder
}

#[test]
fn a_conversation_that_outgrows_the_context_loses_no_message() {
    let args = ["--context", "64", "--max-tokens", "4", "--temperature", "0"];
    let long = "There was a fox who had a big red ball and a small blue hat and a very good friend.";
    let output = chat(&args, &format!("Hello!\n{long}\nAnd a cat?\n"));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{error}");
    let all = answers(&output);
    assert_eq!(all.len(), 3, "an answer for each message: {all:?}");
    let left_out = |answer: &Value| answer["left_out_messages"].as_u64().expect("a number");
    assert_eq!(left_out(&all[0]), 0);
    assert!(all.iter().map(left_out).sum::<u64>() >= 2, "{all:?}");
    assert!(all.iter().all(|a| a["prompt_tokens"].as_u64().is_some_and(|n| n <= 60)), "{all:?}");
    assert_eq!(error, "", "what is left out is in the JSON");
}

#[test]
fn a_message_that_can_never_fit_is_an_error() {
    let output = chat(&["--context", "64", "--max-tokens", "4"], &format!("{}\nfoo\n", "word ".repeat(90)));
    assert_eq!(output.status.code(), Some(4));
    assert!(output.stdout.is_empty());
    let error: Value = serde_json::from_slice(&output.stderr).expect("one JSON object");
    assert_eq!(error["exit_code"], 4);
    assert!(error["error"].as_str().is_some_and(|e| e.contains("64")), "{error}");
}

#[test]
fn a_template_can_be_given() {
    let folder = plain("template");
    let path = folder.path().to_owned();
    let words = ["no chat template", "chat_template.jinja", "tokenizer_config.json", "--template chatml"];
    fails(&["chat", "--model", &path], 4, &words);
    let file = folder.0.join("mine.txt");
    fs::write(&file, "{% for m in messages %}{{ bos_token }}{{ m.content }}{% endfor %}").expect("written");
    let tokens = |template: &str, message: &str| {
        let args = ["--model", &path, "--max-tokens", "3", "--template", template];
        let output = chat(&args, message);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        answers(&output)[0]["prompt_tokens"].as_u64().expect("a number")
    };
    // The special token of the checkpoint is one token.
    let mine = file.to_str().expect("a path");
    assert_eq!(tokens(mine, "a\n"), 2);
    assert!(tokens("chatml", "a\n") > 20, "its markers are text for this tokenizer");
    fails(&["chat", "--model", &path, "--template", "/no/such.jinja"], 3, &["/no/such.jinja"]);
    fs::write(&file, "{% for %}").expect("written");
    fails(&["chat", "--model", &path, "--template", mine], 4, &["--template", "mine.txt"]);
}

#[test]
fn chat_samples_where_the_checkpoint_is_silent_and_generate_does_not() {
    let folder = plain("silent");
    let told = |seed: &str, more: &[&str]| {
        let args = ["--model", folder.path(), "--template", "chatml", "--max-tokens", "16", "--seed", seed];
        let output = chat(&[&args[..], more].concat(), "hello\n");
        answers(&output)[0]["text"].clone()
    };
    assert_eq!(told("1", &[]), told("1", &[]));
    assert_ne!(told("1", &[]), told("2", &[]));
    assert_eq!(told("1", &["--temperature", "0"]), told("2", &["--temperature", "0"]), "options go first");
    let written = |seed: &str| {
        let args =
            ["generate", "--model", folder.path(), "--prompt", "hello", "--max-tokens", "8", "--seed", seed];
        json(&[&args[..], &["--json"]].concat())["token_ids"].clone()
    };
    assert_eq!(written("1"), written("2"));
    // What a file says goes before: this one does not want to be sampled.
    fs::write(folder.0.join("generation_config.json"), r#"{"do_sample": false}"#).expect("written");
    assert_eq!(told("1", &[]), told("2", &[]));
}

#[test]
#[cfg(unix)]
fn an_interrupt_ends_the_answer_also_in_its_prompt_and_the_talk_goes_on() {
    let folder = plain("interrupt");
    let args = ["chat", "--json", "--model", folder.path(), "--template", "chatml", "--context", "16384"];
    let mut child = command(&[&args[..], &["--max-tokens", "4"]].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the command runs");
    let mut input = child.stdin.take().expect("a pipe");
    let mut output = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut answer = || -> Value {
        let line = output.next().expect("a line").expect("readable");
        serde_json::from_str(&line).expect("JSON")
    };
    input.write_all(b"hello\n").expect("written");
    assert_eq!(answer()["finish_reason"], "length");
    // A prompt of many pieces: it takes seconds.
    writeln!(input, "{}", "ab ".repeat(6000)).expect("written");
    std::thread::sleep(std::time::Duration::from_millis(300));
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
    assert!(killed.success());
    let cancelled = answer();
    assert_eq!(
        (&cancelled["finish_reason"], &cancelled["text"]),
        (&"cancelled".into(), &"".into()),
        "{cancelled}"
    );
    // The message was taken back: the next one follows the first answer.
    input.write_all(b"hello\n").expect("written");
    let next = answer();
    assert_eq!(next["finish_reason"], "length");
    assert!(next["prompt_tokens"].as_u64().is_some_and(|n| n < 400), "{next}");
    drop(input);
    assert_eq!(child.wait().expect("ends").code(), Some(0));
}

#[test]
fn the_first_mistakes_are_told_with_the_next_step() {
    let words = ["no such folder or file", "config.json", ".gguf", "hf download"];
    for args in [&["chat", "--model", "Qwen/Qwen3-0.6B"][..], &["inspect", "Qwen/Qwen3-0.6B"]] {
        fails(args, 3, &words);
    }
    let error = girih(&["chat", "--model", "Qwen/Qwen3-0.6B", "--json"]).stderr;
    let error: Value = serde_json::from_slice(&error).expect("one JSON object");
    assert_eq!(error["exit_code"], 3);
    // Not at a terminal there is help, and nothing was done.
    let bare = girih(&[]);
    assert_eq!(bare.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&bare.stderr).contains("Usage:"));
    let folder = Folder::new("odd");
    fails(&["inspect", folder.path()], 3, &["config.json"]);
    let file = folder.0.join("model.safetensors");
    fs::write(&file, b"not a model").expect("written");
    let path = file.to_str().expect("a path");
    fails(&["inspect", path], 3, &["model.safetensors"]);
    fails(&["generate", "--model", path, "--prompt", "x"], 3, &["model.safetensors"]);
}

#[test]
fn a_bias_forbids_a_token() {
    let args =
        ["generate", "--prompt", "Once upon a time", "--max-tokens", "1", "--temperature", "0", "--json"];
    let first = json(&args)["token_ids"][0].clone();
    let bias = format!("{first}=-1000");
    assert_ne!(json(&[&args[..], &["--logit-bias", &bias]].concat())["token_ids"][0], first);
    fails(&["generate", "--prompt", "x", "--logit-bias", "fox=1"], 4, &["fox=1", "1062=-5"]);
}

#[test]
fn a_cache_of_f16_needs_half_and_tells_the_same_story() {
    let args =
        ["generate", "--prompt", "Once upon a time", "--max-tokens", "12", "--temperature", "0", "--json"];
    let text = json(&[&args[..], &["--cache", "f16"]].concat())["text"].clone();
    assert_eq!(text, ", there was a merry puppy named Ralph. He lived in");
    fails(&["generate", "--prompt", "x", "--cache", "int8"], 4, &["int8", "f16"]);
}
