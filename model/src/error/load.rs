//! What is wrong with a checkpoint.

use girih_ops::{GpuError, OpError};

use super::{OutOfMemory, RunError, TextError, cut, device};

/// A tensor of another shape than the model needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MisShaped {
    /// Full name in the checkpoint.
    pub tensor: String,
    /// Shape found.
    pub got: Vec<u64>,
    /// Shape wanted.
    pub want: Vec<u64>,
}

/// A model cannot be loaded.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LoadError {
    /// A file that must exist does not.
    #[error("{}: no such file", cut(.file))]
    NoFile {
        /// File.
        file: String,
    },
    /// A name that would lead out of the checkpoint's folder.
    #[error("{:?}: must be a plain file name inside the checkpoint", cut(.file))]
    FileName {
        /// Name found.
        file: String,
    },
    /// Reading failed.
    #[error("{file}: cannot read: {message}")]
    Read {
        /// File.
        file: String,
        /// What the system said.
        message: String,
    },
    /// A text file that is larger than any sensible one.
    #[error("{file}: has {got} bytes, must be at most {limit}")]
    TooLarge {
        /// File.
        file: String,
        /// Bytes found.
        got: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// A file ends too early.
    #[error("{file}: has {got} bytes, needs {want}: the file is truncated")]
    Truncated {
        /// File.
        file: String,
        /// Bytes found.
        got: u64,
        /// Bytes wanted.
        want: u64,
    },
    /// The length of a safetensors header is impossible.
    #[error("{file}: header length is {got}, must be at most {limit}")]
    HeaderLength {
        /// File.
        file: String,
        /// Length found.
        got: u64,
        /// Length allowed.
        limit: u64,
    },
    /// A JSON file or header cannot be parsed.
    #[error("{file}: not valid: {message}")]
    Json {
        /// File.
        file: String,
        /// Where and why.
        message: String,
    },
    /// A tensor lies outside of its file.
    #[error("{file}: {} ends at byte {got}, the data has {limit}", cut(.tensor))]
    OutOfFile {
        /// File.
        file: String,
        /// Tensor.
        tensor: String,
        /// End found, relative to the data.
        got: u64,
        /// Bytes of data.
        limit: u64,
    },
    /// A tensor ends before it begins.
    #[error("{file}: {} lies at {begin}..{end}, must end after it begins", cut(.tensor))]
    Misordered {
        /// File.
        file: String,
        /// Tensor.
        tensor: String,
        /// Begin found.
        begin: u64,
        /// End found.
        end: u64,
    },
    /// Two tensors share bytes.
    #[error("{file}: {} begins at byte {got}, inside {}, which ends at {want}", cut(.tensor), cut(.other))]
    Overlap {
        /// File.
        file: String,
        /// The later tensor.
        tensor: String,
        /// The earlier tensor.
        other: String,
        /// Begin of the later.
        got: u64,
        /// End of the earlier.
        want: u64,
    },
    /// Bytes that belong to no tensor, which the format forbids.
    #[error("{file}: bytes {begin}..{end} of the data belong to no tensor")]
    Hole {
        /// File.
        file: String,
        /// First byte, relative to the data.
        begin: u64,
        /// One past the last.
        end: u64,
    },
    /// Shape and type do not give the stored number of bytes.
    #[error("{file}: {} has {got} bytes, its shape and type need {want}", cut(.tensor))]
    ByteCount {
        /// File.
        file: String,
        /// Tensor.
        tensor: String,
        /// Bytes found.
        got: u64,
        /// Bytes wanted, or a note that they overflow.
        want: String,
    },
    /// More dimensions than any checkpoint has.
    #[error("{file}: {} has {got} dimensions, must be at most {limit}", cut(.tensor))]
    Rank {
        /// File.
        file: String,
        /// Tensor.
        tensor: String,
        /// Dimensions found.
        got: usize,
        /// Dimensions allowed.
        limit: usize,
    },
    /// The same name twice.
    #[error("{file}: {} occurs twice", cut(.tensor))]
    Duplicate {
        /// File that holds the second.
        file: String,
        /// Tensor.
        tensor: String,
    },
    /// An element type that the format does not define.
    #[error("{file}: {} has type {:?}, must be one of {want}", cut(.tensor), cut(.got))]
    UnknownType {
        /// File.
        file: String,
        /// Tensor.
        tensor: String,
        /// Type found.
        got: String,
        /// Types known.
        want: String,
    },
    /// A folder without weights that can be read.
    #[error(
        "no weights: there must be model.safetensors, model.safetensors.index.json with its files, \
         consolidated.safetensors or a GGUF file{}",
        describe_unread(.unread)
    )]
    NoWeights {
        /// Files found that hold weights in a format that is not read.
        unread: Vec<String>,
    },
    /// The index names files that are not there.
    #[error("{index}: {} lies in {}, which {} missing", cut(.tensor), some(.files), if .files.len() == 1 { "is" } else { "are" })]
    MissingShard {
        /// Index.
        index: String,
        /// Files it names.
        files: Vec<String>,
        /// A tensor of the first of them.
        tensor: String,
    },
    /// The index names tensors that their file does not hold.
    #[error("{index}: {} does not hold {}", cut(.file), some(.tensors))]
    AbsentFromShard {
        /// Index.
        index: String,
        /// File it names.
        file: String,
        /// Tensors that are absent.
        tensors: Vec<String>,
    },
    /// Tensors that the model needs and the checkpoint lacks or has otherwise.
    #[error("{}", describe_tensors(.missing, .mis_shaped, .unused))]
    Tensors {
        /// Names that are not there.
        missing: Vec<String>,
        /// Tensors of another shape.
        mis_shaped: Vec<MisShaped>,
        /// Tensors that the model does not use: often the missing ones under another name.
        unused: Vec<String>,
    },
    /// A tensor of a type that cannot be used here.
    #[error("{} is {got}, must be {want}", cut(.tensor))]
    StoredType {
        /// Tensor.
        tensor: String,
        /// Type found.
        got: &'static str,
        /// Types wanted.
        want: &'static str,
    },
    /// NaN or infinity among the weights.
    #[error("{}: element {index} is {got}, must be a finite number", cut(.tensor))]
    NotFinite {
        /// Tensor.
        tensor: String,
        /// Element, row-major.
        index: u64,
        /// Value found.
        got: f32,
    },
    /// A weight that the type it shall be stored in cannot hold.
    #[error("{}: element {index} is {got}, which {want} cannot hold", cut(.tensor))]
    OutOfRange {
        /// Tensor.
        tensor: String,
        /// Element, row-major.
        index: u64,
        /// Value found.
        got: f32,
        /// Type wanted.
        want: &'static str,
    },
    /// A tensor of a quantised module that cannot be what its layout says.
    #[error("{} is {got}, must be {want}", cut(.tensor))]
    Quantized {
        /// Tensor or module.
        tensor: String,
        /// What it is.
        got: String,
        /// What it must be.
        want: String,
    },
    /// An element that its layout does not allow: a scale, a zero, a group index.
    #[error("{}: element {index} is {got}, must be {want}", cut(.tensor))]
    Element {
        /// Tensor.
        tensor: String,
        /// Element, row-major.
        index: u64,
        /// Value found.
        got: String,
        /// Values allowed.
        want: String,
    },
    /// Modules that become one matrix (q, k, v; gate, up) and cannot.
    #[error("{} are fused into one matrix, but {what} differ: {got}; they must be equal", cut(.modules))]
    Fused {
        /// Modules.
        modules: String,
        /// What differs.
        what: &'static str,
        /// Values found.
        got: String,
    },
    /// A weight format was asked for that quantised weights cannot be brought into.
    #[error("{} is stored as {got}; --weights must be {want}", cut(.tensor))]
    Requantize {
        /// Module.
        tensor: String,
        /// Format found.
        got: String,
        /// What may be asked for.
        want: String,
    },
    /// Integer activations were asked for where weights cannot be multiplied with them.
    #[error(
        "{} has weights of format {got}, which cannot be multiplied with activations {activation}: {want}",
        cut(.tensor)
    )]
    Activations {
        /// Module.
        tensor: String,
        /// Format found.
        got: String,
        /// Activations asked for.
        activation: String,
        /// What is needed.
        want: &'static str,
    },
    /// A field of the configuration has a value that no model can have.
    #[error("config.json: {} is {got}, must be {want}", cut(.field))]
    Config {
        /// Field.
        field: String,
        /// Value found.
        got: String,
        /// Values allowed.
        want: String,
    },
    /// A model that is not known.
    #[error("config.json: model_type is {:?}, must be one of {}", cut(.got), .known.join(", "))]
    UnknownModel {
        /// Type found.
        got: String,
        /// Types known.
        known: Vec<&'static str>,
    },
    /// Tensors that the network does not use, in a checkpoint whose tensors all change the result.
    #[error("tensors that {model_type} as girih knows it does not have: {}; their model computes something else", some(.tensors))]
    UnusedTensors {
        /// The architecture.
        model_type: String,
        /// Names.
        tensors: Vec<String>,
    },
    /// A field of a file other than config.json has a value that cannot be used.
    #[error("{file}: {} is {got}, must be {want}", cut(.field))]
    Field {
        /// File.
        file: String,
        /// Field.
        field: String,
        /// Value found.
        got: String,
        /// Values allowed.
        want: String,
    },
    /// A context that the model does not have.
    #[error("the context is {got} tokens, must be 1 to {limit}")]
    Context {
        /// Tokens asked for.
        got: u32,
        /// Tokens allowed.
        limit: u32,
    },
    /// Less memory for experts than the smallest cache takes.
    #[error(
        "the memory of experts is {got} bytes, must be at least {want}: {}",
        if *.kinds == 1 { "one expert".to_owned() } else { format!("one expert of each of {kinds} shapes and formats") }
    )]
    ExpertMemory {
        /// Bytes asked for.
        got: u64,
        /// Bytes of one expert of each kind.
        want: u64,
        /// Shapes and formats.
        kinds: usize,
    },
    /// A memory of experts for a model that has none.
    #[error("the memory of experts was given for a model that has no experts")]
    NoExperts,
    /// A synthetic model that is not known.
    #[error("no preset is called {got:?}; there are: {known}")]
    UnknownPreset {
        /// Name asked for.
        got: String,
        /// Names there are.
        known: String,
    },
    /// The weights do not fit.
    #[error("{0}")]
    OutOfMemory(#[from] OutOfMemory),
    /// A part of the text side cannot be loaded.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A tensor cannot be made.
    #[error(transparent)]
    Op(#[from] OpError),
    /// What the model would run cannot be recorded on the device.
    #[error(transparent)]
    Record(#[from] Box<RunError>),
    /// The device failed.
    #[error(transparent)]
    Gpu(#[from] GpuError),
}

impl LoadError {
    /// The failure of the device behind this error, if that is what it is. After [`GpuError::Lost`] a new device
    /// must be opened and the model loaded again.
    pub fn device(&self) -> Option<&GpuError> {
        match self {
            Self::Gpu(error) => Some(error),
            Self::Op(error) => device(error),
            _ => None,
        }
    }
}

fn describe_unread(unread: &[String]) -> String {
    if unread.is_empty() {
        return String::new();
    }
    let names = unread.join(", ");
    format!("; {names} is there, but pickled PyTorch files are not read: save the model as safetensors")
}

fn cut_all(names: &[String]) -> String {
    names.iter().map(|name| cut(name)).collect::<Vec<_>>().join(", ")
}

/// The first names of a list: a checkpoint of another architecture has hundreds of tensors.
fn some(names: &[String]) -> String {
    const SHOWN: usize = 8;
    match names.len().checked_sub(SHOWN) {
        Some(more @ 1..) => format!("{} and {more} more", cut_all(&names[..SHOWN])),
        _ => cut_all(names),
    }
}

fn describe_tensors(missing: &[String], mis_shaped: &[MisShaped], unused: &[String]) -> String {
    let mut parts = Vec::new();
    if !missing.is_empty() {
        parts.push(format!("missing tensors: {}", some(missing)));
    }
    for t in mis_shaped {
        parts.push(format!("{} has shape {:?}, must be {:?}", cut(&t.tensor), t.got, t.want));
    }
    if !unused.is_empty() {
        parts.push(format!("unused tensors: {}", some(unused)));
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name from a file may be as long as the file.
    #[test]
    fn long_names_are_shown_in_part() {
        let long = || "x".repeat(1 << 16);
        let (file, want) = ("a.safetensors".to_owned(), "1".to_owned());
        let errors = [
            LoadError::OutOfFile { file: file.clone(), tensor: long(), got: 2, limit: 1 },
            LoadError::Overlap { file: file.clone(), tensor: long(), other: long(), got: 1, want: 2 },
            LoadError::ByteCount { file: file.clone(), tensor: long(), got: 2, want: want.clone() },
            LoadError::Duplicate { file: file.clone(), tensor: long() },
            LoadError::UnknownType { file: file.clone(), tensor: long(), got: long(), want: want.clone() },
            LoadError::MissingShard { index: file.clone(), files: vec![long()], tensor: long() },
            LoadError::NotFinite { tensor: long(), index: 0, got: f32::NAN },
            LoadError::Quantized { tensor: long(), got: want.clone(), want: want.clone() },
            LoadError::Fused { modules: long(), what: "formats", got: want.clone() },
            LoadError::Config { field: long(), got: want.clone(), want: want.clone() },
            LoadError::Field { file, field: long(), got: want.clone(), want },
        ];
        for error in errors {
            let said = error.to_string();
            assert!(said.len() < 700 && said.contains("xxx..."), "{said:.900}");
        }
    }
}
