//! What ends the command, and with which exit code.

use girih_model::run::sampler::SampleError;
use girih_model::{LoadError, RunError};
use girih_ops::{GpuError, KernelError, OpError};
use girih_quantize::QuantizeError;

/// Exit codes: 1 a failure while running, 2 no usable device, 3 a bad file, 4 a bad argument.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No device, or it failed.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// A kernel could not be run.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// An operation was refused.
    #[error(transparent)]
    Op(#[from] OpError),
    /// A checkpoint could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A checkpoint that the user has named could not be loaded.
    #[error("{name}: {source}")]
    Model {
        /// Its folder, or the name of a built-in one.
        name: String,
        /// Cause.
        source: Box<LoadError>,
    },
    /// A path without anything.
    #[error(
        "{name}: no such folder or file. A model is a folder with config.json, weights (*.safetensors) and \
         tokenizer.json, as Hugging Face has it, or one .gguf file. girih downloads nothing by itself: \
         `hf download OWNER/NAME --local-dir FOLDER` brings one; without --model there is the built-in story model"
    )]
    NoModel {
        /// The path.
        name: String,
    },
    /// A model could not be run.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A matrix could not be quantised.
    #[error(transparent)]
    Numerics(#[from] QuantizeError),
    /// A model could not be quantised.
    #[error(transparent)]
    Quantize(#[from] crate::quantize::Error),
    /// An argument makes no sense.
    #[error("{0}")]
    Argument(String),
    /// A file of the user's could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// File.
        path: String,
        /// Cause.
        source: std::io::Error,
    },
    /// Writing to standard output failed.
    #[error("writing the output failed: {0}")]
    Output(#[from] std::io::Error),
    /// Something that was measured is wrong.
    #[error("{0}")]
    Check(String),
}

fn load_exit_code(error: &LoadError) -> u8 {
    match error {
        LoadError::Context { .. }
        | LoadError::UnknownPreset { .. }
        | LoadError::ExpertMemory { .. }
        | LoadError::NoExperts => 4,
        LoadError::OutOfMemory(_) | LoadError::Op(_) | LoadError::Gpu(_) | LoadError::Record(_) => 1,
        _ => 3,
    }
}

impl Failure {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Gpu(
                GpuError::NoAdapter { .. } | GpuError::NoSuchAdapter { .. } | GpuError::TooSmall { .. },
            ) => 2,
            Self::Load(error) => load_exit_code(error),
            Self::Model { source, .. } | Self::Run(RunError::Expert { source, .. }) => load_exit_code(source),
            Self::Argument(_)
            | Self::Gpu(GpuError::UnknownTier(_) | GpuError::NoTier { .. } | GpuError::NoKernels { .. })
            | Self::Run(
                RunError::Sample(SampleError::Parameter { .. })
                | RunError::PromptTooLong { .. }
                | RunError::TokenId { .. }
                | RunError::NoPrompt { .. }
                | RunError::NotADecoder { .. }
                | RunError::EmptyPrompt,
            ) => 4,
            Self::Quantize(error) => error.exit_code(),
            Self::Numerics(QuantizeError::NotFinite { .. }) | Self::File { .. } | Self::NoModel { .. } => 3,
            _ => 1,
        }
    }
}
