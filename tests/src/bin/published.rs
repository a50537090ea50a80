//! Runs published models and compares them with what llama.cpp and sentence-transformers made of the same files
//! (`tests/goldens/published`). `cargo xtask published` brings the files and runs this with their folder.

use std::error::Error;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use girih_kernels::{Gpu, Options};
use girih_model::checkpoint::source::DirSource;
use girih_model::{
    Conversation, Finish, GenerateOptions, Input, LoadOptions, Model, Sampling, Session, SessionOptions,
    generate,
};
use serde::Deserialize;

/// Vectors that point in the same direction: 1 minus the cosine, at most.
const DIRECTION: f64 = 1e-5;

/// What llama.cpp made of a file.
#[derive(Deserialize)]
struct Texts {
    file: String,
    oracle: String,
    /// A step is decided if llama.cpp's best token is ahead by so many nats; quantised weights are multiplied in other
    /// ways there.
    firm_gap: f64,
    prompts: Vec<Text>,
}

#[derive(Deserialize)]
struct Text {
    /// A text to continue, or else a conversation to answer.
    prompt: Option<String>,
    #[serde(default)]
    messages: serde_json::Value,
    prompt_ids: Vec<u32>,
    /// Greedy; an end token is the last.
    token_ids: Vec<u32>,
    /// Of each step, how far its token is ahead of the next.
    gaps: Vec<f64>,
}

/// What sentence-transformers made of texts.
#[derive(Deserialize)]
#[expect(clippy::struct_field_names, reason = "the names in the file")]
struct Vectors {
    file: String,
    oracle: String,
    texts: Vec<String>,
    token_ids: Vec<Vec<u32>>,
    vectors: Vec<Vec<f64>>,
}

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("wanted the folder of the models: `cargo xtask published` brings them and runs this");
        return ExitCode::FAILURE;
    };
    match pollster::block_on(run(Path::new(&folder))) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(wrong) => {
            println!("\n{wrong} disagree");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Compares everything; returns how many texts disagree.
async fn run(folder: &Path) -> Result<usize, Box<dyn Error>> {
    let gpu = Gpu::new(Options::default()).await?;
    println!("{} (tier {})", gpu.caps().adapter.name, gpu.caps().tier);
    let mut wrong = 0;
    for golden in ["smollm2-135m-instruct-q4_1.json", "gemma-3-270m-q4_k_m.json"] {
        let golden: Texts = read(golden)?;
        wrong += texts(&gpu, folder, &golden).await?;
    }
    wrong += vectors(&gpu, folder, &read("all-minilm-l6-v2.json")?).await?;
    Ok(wrong)
}

fn read<T: for<'a> Deserialize<'a>>(name: &str) -> Result<T, Box<dyn Error>> {
    let path: PathBuf = girih_tests::files::goldens().join("published").join(name);
    let bytes = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(serde_json::from_slice(&bytes).map_err(|e| format!("{}: {e}", path.display()))?)
}

async fn load(gpu: &Gpu, folder: &Path, file: &str) -> Result<Arc<Model>, Box<dyn Error>> {
    let source = Arc::new(DirSource::at(folder.join(file)));
    let options = LoadOptions { context: Some(512), ..LoadOptions::default() };
    Ok(Model::load(gpu, source, options, |_| ()).await.map_err(|e| format!("{file}: {e}"))?)
}

/// The tokens of a text, as the model's own tokenizer and template make them.
fn tokens(model: &Model, text: &Text) -> Result<Vec<u32>, Box<dyn Error>> {
    if let Some(prompt) = &text.prompt {
        return Ok(model.tokenizer()?.encode(prompt, true)?);
    }
    let conversation = Conversation {
        messages: text.messages.clone(),
        add_generation_prompt: true,
        ..Conversation::default()
    };
    Ok(model.tokenizer()?.encode(&model.chat().render(&conversation)?, false)?)
}

/// How the steps of a text compare.
struct Steps {
    /// Tokens that generating gives before the first other one.
    equal: usize,
    /// Given llama.cpp's tokens, the steps at which another token is ahead, and how decided llama.cpp was.
    other: Vec<(usize, f64)>,
}

async fn steps(model: &Arc<Model>, session: &mut Session, text: &Text) -> Result<Steps, Box<dyn Error>> {
    let options = GenerateOptions {
        max_tokens: text.token_ids.len(),
        sampling: Sampling::default(),
        ..GenerateOptions::of(model)
    };
    let stop_ids = &options.stop_ids;
    let tokenizer = Some(model.tokenizer()?);
    let written =
        generate(session, tokenizer, &text.prompt_ids, &options, |_| ControlFlow::Continue(())).await?;
    let mut got = written.token_ids;
    if let (Finish::Stop, Some(end)) =
        (written.finish, text.token_ids.last().filter(|id| stop_ids.contains(id)))
    {
        got.push(*end);
    }
    let equal = got.iter().zip(&text.token_ids).take_while(|(a, b)| a == b).count();
    // The same steps, each behind llama.cpp's tokens, so that one near tie does not hide the steps after it.
    let ids = [&text.prompt_ids[..], &text.token_ids].concat();
    let vocab_size = model.config().vocab_size as usize;
    let mut best = Vec::new();
    session.truncate(0, 0);
    let input = Input { slot: 0, token_ids: &ids[..ids.len() - 1] };
    session
        .all_logits(input, |rows| {
            best.extend(rows.chunks(vocab_size).map(|row| {
                let top = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
                top.map_or(u32::MAX, |(id, _)| id as u32)
            }));
            Ok(())
        })
        .await?;
    let best = &best[text.prompt_ids.len() - 1..];
    let pairs = best.iter().zip(&text.token_ids).zip(&text.gaps).enumerate();
    let other = pairs.filter(|(_, ((a, b), _))| a != b).map(|(step, (_, &gap))| (step, gap)).collect();
    Ok(Steps { equal, other })
}

async fn texts(gpu: &Gpu, folder: &Path, golden: &Texts) -> Result<usize, Box<dyn Error>> {
    let model = load(gpu, folder, &golden.file).await?;
    let mut session = Session::new(&model, SessionOptions::default())?;
    println!("\n{}, beside {}", golden.file, golden.oracle);
    println!(
        "{:<40} {:>9} {:>12} {:>11}  steps with another token (llama.cpp's gap)",
        "text", "prompt", "in a row", "same steps"
    );
    let mut wrong = 0;
    for text in &golden.prompts {
        let same_prompt = tokens(&model, text)? == text.prompt_ids;
        let found = steps(&model, &mut session, text).await?;
        let all = text.token_ids.len();
        // A step that llama.cpp has decided must be the same one, in a row too.
        let decided = |step: usize| text.gaps.get(step).is_some_and(|&gap| gap >= golden.firm_gap);
        let good =
            same_prompt && !decided(found.equal) && found.other.iter().all(|&(step, _)| !decided(step));
        wrong += usize::from(!good);
        let others: Vec<String> =
            found.other.iter().map(|(step, gap)| format!("{step} ({gap:.3})")).collect();
        println!(
            "{:<40} {:>9} {:>12} {:>11}  {}{}",
            shown(text),
            if same_prompt { "same" } else { "DIFFERS" },
            format!("{} of {all}", found.equal),
            format!("{} of {all}", all - found.other.len()),
            others.join(", "),
            if good { "" } else { "  DISAGREES" }
        );
    }
    Ok(wrong)
}

/// The beginning of a text, in one line.
fn shown(text: &Text) -> String {
    let last = text.messages.as_array().and_then(|list| list.last()).and_then(|m| m["content"].as_str());
    let (mark, words) = match (&text.prompt, last) {
        (Some(prompt), _) => ("", prompt.as_str()),
        (None, Some(message)) => ("chat: ", message),
        (None, None) => ("chat", ""),
    };
    let words: String = words.escape_debug().take(32).collect();
    format!("{mark}{words}")
}

async fn vectors(gpu: &Gpu, folder: &Path, golden: &Vectors) -> Result<usize, Box<dyn Error>> {
    let model = load(gpu, folder, &golden.file).await?;
    println!("\n{}, beside {}", golden.file, golden.oracle);
    println!("{:<40} {:>9} {:>12}", "text", "tokens", "1 - cosine");
    let mut wrong = 0;
    for ((text, want_ids), want) in golden.texts.iter().zip(&golden.token_ids).zip(&golden.vectors) {
        let ids = model.embedding_ids(text)?;
        let same = &ids == want_ids;
        let got = model.embed(&[ids]).await?;
        let got = got.first().map_or(&[][..], Vec::as_slice);
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
        let got: Vec<f64> = got.iter().map(|&x| f64::from(x)).collect();
        let apart = 1.0 - dot(&got, want) / (dot(&got, &got) * dot(want, want)).sqrt();
        let good = same && got.len() == want.len() && apart.abs() < DIRECTION;
        wrong += usize::from(!good);
        let words: String = text.escape_debug().take(38).collect();
        let tokens = if same { "same" } else { "DIFFER" };
        println!("{words:<40} {tokens:>9} {apart:>12.1e}{}", if good { "" } else { "  DISAGREES" });
    }
    Ok(wrong)
}
