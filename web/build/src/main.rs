//! `girih-web-build`: what `cargo xtask web` runs, and the manifest of a model for those who host one.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use girih_web_build::manifest::Manifest;
use girih_web_build::package::{self, Paths};
use girih_web_build::serve::{Options, Route, Server};

/// Packages girih for the browser.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes `web` in cargo's target folder from the modules of a build.
    Package {
        /// The repository.
        #[arg(long, default_value = ".")]
        root: PathBuf,
        /// Cargo's target folder.
        #[arg(long)]
        target: PathBuf,
    },
    /// Serves the site that `package` has made until it is interrupted.
    Serve {
        /// Cargo's target folder.
        #[arg(long)]
        target: PathBuf,
        /// Port on the loopback interface; 0 takes a free one.
        #[arg(long, default_value_t = 8080)]
        port: u16,
    },
    /// Writes girih-manifest.json into the folder of a model: size and SHA-256 of its files and of their blocks.
    Manifest {
        /// Folder with config.json, model.safetensors and the like.
        dir: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), Box<dyn std::error::Error>> {
    match command {
        Command::Package { root, target } => {
            package::make(&Paths::of(&root, &target))?;
        }
        Command::Serve { target, port } => {
            let site = package::out(&target).join("site");
            if !site.join("index.html").is_file() {
                return Err(
                    format!("found no site in {}, wanted it from `cargo xtask web`", site.display()).into()
                );
            }
            let server = Server::start(vec![Route::folder("/", site)], Options { port, faults: false })
                .map_err(|error| format!("port {port}: {error}"))?;
            println!("{}", server.url());
            loop {
                std::thread::park();
            }
        }
        Command::Manifest { dir } => {
            println!("{}", Manifest::of(&dir)?.write(&dir)?.display());
        }
    }
    Ok(())
}
