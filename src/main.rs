//! The `girih` command: language models on any GPU.

mod ceilings;
mod commands;
mod device;
mod embedded;
mod error;
mod history;
mod models;
mod quantize;
mod templates;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::error::Failure;

/// Language models on any GPU: Vulkan, Metal, DX12. No CUDA, no C++ toolchain.
///
/// Without --model, commands use the small story model that is built in. Exit codes: 1 a failure while running, 2 no
/// usable GPU or driver, 3 a bad file, 4 a bad argument.
#[derive(Debug, Parser)]
#[command(name = "girih", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Use at most this tier: t0 (portable), t1 (subgroups), t4 (CPU)
    #[arg(long, global = true, value_name = "TIER")]
    tier: Option<girih_kernels::Tier>,
    /// GPU to use: a part of its name, or its number in `girih doctor`
    #[arg(long, global = true, value_name = "NAME")]
    adapter: Option<String>,
    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    json: bool,
    /// Say more (-vv: everything)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

impl Global {
    /// Writes a note to standard error: a line for people, or an object.
    fn note(&self, note: &dyn std::fmt::Display) {
        if self.json {
            eprintln!("{}", serde_json::json!({ "note": note.to_string() }));
        } else {
            eprintln!("note: {note}");
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Continue a text
    Generate(commands::generate::Generate),
    /// Talk with a model
    Chat(commands::chat::Chat),
    /// Turn texts into vectors
    Embed(commands::embed::Embed),
    /// Measure the perplexity of a text
    Eval(commands::eval::Eval),
    /// Write logits for token ids to a safetensors file, for comparing with other implementations
    Logits(commands::logits::Logits),
    /// Make a checkpoint smaller: low-precision weights, and activations
    Quantize(commands::quantize::Quantize),
    /// Show architecture, tensors and memory needs of a checkpoint
    Inspect(commands::inspect::Inspect),
    /// Check GPUs and drivers, and say how to mend what is missing
    Doctor(commands::doctor::Doctor),
    /// Measure speed
    Bench(commands::bench::Bench),
    /// Find the variants of kernels that take the least time here, and use them from now on
    Tune(commands::tune::Tune),
    /// Show what a decode step or a prompt dispatches: variants and why, bytes, operations
    Explain(commands::explain::Explain),
}

/// What someone who has just typed `girih` sees.
const WELCOME: &str = "\
girih runs language models on the GPU of this machine. To begin with:

  girih generate --prompt \"Once upon a time\"   a story, by the small model that is built in
  girih doctor                                  the GPUs and drivers of this machine
  girih chat --model FOLDER                     a talk with a model: a folder from Hugging Face, or a .gguf file

All commands: girih help. All options of one: girih help chat.";

fn main() -> ExitCode {
    if std::env::args_os().len() == 1 && std::io::stdout().is_terminal() {
        println!("{WELCOME}");
        return ExitCode::SUCCESS;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let level = match cli.global.verbose {
        0 => "error",
        1 => "warn,girih=info",
        _ => "info,girih=debug,wgpu_core=info",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let global = &cli.global;
    let result = pollster::block_on(async {
        match cli.command {
            Command::Generate(c) => c.run(global).await,
            Command::Chat(c) => c.run(global).await,
            Command::Embed(c) => c.run(global).await,
            Command::Eval(c) => c.run(global).await,
            Command::Logits(c) => c.run(global).await,
            Command::Quantize(c) => c.run(global).await,
            Command::Inspect(c) => c.run(global).await,
            Command::Doctor(c) => c.run(global).await,
            Command::Bench(c) => c.run(global).await,
            Command::Tune(c) => c.run(global).await,
            Command::Explain(c) => c.run(global).await,
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // A reader that has seen enough (`girih ... | head`) is no error.
        Err(Failure::Output(e)) if e.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            let code = failure.exit_code();
            if global.json {
                eprintln!("{}", json_error(&failure, code));
            } else {
                eprintln!("error: {failure}");
            }
            ExitCode::from(code)
        }
    }
}

fn json_error(error: &dyn std::fmt::Display, code: u8) -> serde_json::Value {
    serde_json::json!({ "error": error.to_string(), "exit_code": code })
}

/// Help and version, or what is wrong with the arguments.
fn usage(error: &clap::Error) -> ExitCode {
    const BAD_ARGUMENT: u8 = 4;
    if error.use_stderr() && std::env::args_os().any(|a| a == "--json") {
        eprintln!("{}", json_error(&error.to_string().trim_end(), BAD_ARGUMENT));
    } else {
        let _ = error.print();
    }
    if error.use_stderr() { ExitCode::from(BAD_ARGUMENT) } else { ExitCode::SUCCESS }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }

    #[test]
    fn what_is_suggested_first_can_be_typed() {
        let lines = super::WELCOME.lines().filter_map(|line| line.strip_prefix("  "));
        let commands: Vec<&str> = lines.filter_map(|line| line.split("   ").next()).collect();
        assert_eq!(commands.len(), 3);
        for command in commands {
            let (plain, quoted) = command.split_once(" \"").unwrap_or((command, ""));
            let words = plain.split(' ').chain((!quoted.is_empty()).then(|| quoted.trim_matches('"')));
            assert!(super::Cli::try_parse_from(words).is_ok(), "{command}");
        }
    }
}
