//! What stops `girih quantize`.

use std::path::PathBuf;

/// Reasons that have to do with what is asked for, not with files or devices.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The input is quantised.
    #[error("{model}: is quantised already ({method}); a dense checkpoint (F64, F32, F16 or BF16) is needed")]
    Quantized {
        /// Name of the model.
        model: String,
        /// Method found.
        method: String,
    },
    /// The input is in a format whose weights are not read here.
    #[error("{model}: is GGUF; a checkpoint folder with dense safetensors (F64, F32, F16 or BF16) is needed")]
    Gguf {
        /// Name of the model.
        model: String,
    },
    /// A matrix that is not stored as plain floats.
    #[error("{module}.weight is no matrix of F64, F32, F16 or BF16: only dense checkpoints can be quantised")]
    NotDense {
        /// Module.
        module: String,
    },
    /// The folder is there.
    #[error("{}: exists already; give another folder, or --force to replace it", .folder.display())]
    Exists {
        /// Folder.
        folder: PathBuf,
    },
    /// The folder is there, and not one that may be replaced.
    #[error(
        "{}: is not a checkpoint that girih has quantised; it is not replaced, even with --force",
        .folder.display()
    )]
    Foreign {
        /// Folder.
        folder: PathBuf,
    },
    /// The name that a folder has while it is replaced is taken.
    #[error(
        "{}: is in the way: the folder that --force replaces is moved there for a moment; move it or delete it",
        .folder.display()
    )]
    InTheWay {
        /// Folder.
        folder: PathBuf,
    },
    /// Another process works on the same folder.
    #[error("{}: is locked; the unfinished folder is in use by another process", .file.display())]
    Busy {
        /// The lock.
        file: PathBuf,
    },
    /// An unfinished run that cannot go on with these options.
    #[error(
        "{}: holds an unfinished run with another {field} ({got}; now {want}). Go on with the options of that run, \
         or start anew with --restart",
        .folder.display()
    )]
    OtherRun {
        /// Folder.
        folder: PathBuf,
        /// What differs.
        field: String,
        /// Value found.
        got: String,
        /// Value wanted.
        want: String,
    },
    /// A file of an unfinished run is gone.
    #[error("{}: files of the run have vanished; run the command again", .folder.display())]
    Vanished {
        /// Folder.
        folder: PathBuf,
    },
    /// A text that is too short.
    #[error("{text}: has {got} tokens, at least {want} are needed")]
    ShortText {
        /// Name of the text.
        text: String,
        /// Tokens found.
        got: usize,
        /// Tokens wanted.
        want: usize,
    },
}

impl Error {
    /// Exit code: 3 a file, 4 an argument.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Quantized { .. } | Self::Gguf { .. } | Self::NotDense { .. } | Self::ShortText { .. } => 3,
            Self::Exists { .. }
            | Self::Foreign { .. }
            | Self::InTheWay { .. }
            | Self::OtherRun { .. }
            | Self::Busy { .. } => 4,
            Self::Vanished { .. } => 1,
        }
    }
}
