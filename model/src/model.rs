//! A checkpoint on the GPU with everything that belongs to it.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use girih_ops::{Batch, Chunk, Frame, Gpu, OpError, Tensor, WeightType};

use crate::arch::{self, Network};
use crate::chat::ChatTemplates;
use crate::config::Config;
use crate::error::{LoadError, OutOfMemory, RunError};
use crate::format::safetensors::TensorTable;
use crate::generation_config::GenerationConfig;
use crate::layers::{Decoder, Encoder, Scope, Trace};
use crate::pooling::Pooling;
use crate::session::{Input, Session, SessionOptions};
use crate::source::{BoxFuture, ByteSource, read_whole};
use crate::tokenizer::Tokenizer;
use crate::weights::{WeightPolicy, Weights};

/// Context length used where nothing else is asked for; the cache is sized by it.
pub const DEFAULT_CONTEXT: u32 = 4096;

/// Tokens of sequences that are embedded together, all counted as long as the longest.
const EMBED_TOKENS: usize = 4096;

/// Bytes of a text file of a checkpoint at most.
const MAX_TEXT: u64 = 256 << 20;

/// Reads `config.json`.
///
/// # Errors
/// A file that is missing or malformed, values that no model can have.
pub async fn load_config(source: &dyn ByteSource) -> Result<Config, LoadError> {
    const FILE: &str = "config.json";
    let bytes = read_whole(source, FILE, MAX_TEXT).await?;
    Config::parse(&bytes.ok_or_else(|| LoadError::NoFile { file: FILE.into() })?)
}

/// How to load a checkpoint.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions {
    /// Tokens that a sequence can have; the smaller of the model's own and [`DEFAULT_CONTEXT`] if `None`.
    pub context: Option<u32>,
    /// Element type of the matrices on the GPU; the checkpoint's own if `None`.
    pub weight_type: Option<WeightType>,
}

/// A loaded model.
#[derive(Debug)]
pub struct Model {
    gpu: Gpu,
    config: Config,
    network: Network,
    tokenizer: Option<Tokenizer>,
    chat: ChatTemplates,
    generation: GenerationConfig,
    pooling: Pooling,
    context: u32,
    weight_bytes: u64,
    unused: Vec<String>,
}

type OnProgress = dyn FnMut(Progress) + Send;

/// Reports what is read through it.
struct Counted {
    source: Arc<dyn ByteSource>,
    total: u64,
    loaded: Mutex<(u64, Box<OnProgress>)>,
}

impl std::fmt::Debug for Counted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.source.fmt(f)
    }
}

impl ByteSource for Counted {
    fn read<'a>(&'a self, file: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Vec<u8>, LoadError>> {
        Box::pin(async move {
            let bytes = self.source.read(file, range).await?;
            let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
            loaded.0 += bytes.len() as u64;
            let progress = Progress { loaded: loaded.0, total: self.total };
            (loaded.1)(progress);
            Ok(bytes)
        })
    }

    fn size<'a>(&'a self, file: &'a str) -> BoxFuture<'a, Result<Option<u64>, LoadError>> {
        self.source.size(file)
    }

    fn list(&self) -> Option<Vec<String>> {
        self.source.list()
    }
}

/// Loading has come this far.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Bytes of weights on the GPU.
    pub loaded: u64,
    /// Bytes of weights in the checkpoint.
    pub total: u64,
}

impl Model {
    /// Loads a checkpoint folder: config, weights, tokenizer, template.
    ///
    /// # Errors
    /// Files that are missing or malformed, an architecture that is not known, tensors that are missing or have
    /// other shapes, memory that does not suffice.
    pub async fn load(
        gpu: &Gpu,
        source: Arc<dyn ByteSource>,
        options: LoadOptions,
        progress: impl FnMut(Progress) + Send + 'static,
    ) -> Result<Arc<Self>, LoadError> {
        let config = load_config(&*source).await?;
        let table = TensorTable::open(&*source).await?;
        let limit = config.max_position_embeddings;
        let context = options.context.unwrap_or(limit.min(DEFAULT_CONTEXT));
        if context == 0 || context > limit {
            return Err(LoadError::Context { got: context, limit });
        }
        let tokenizer = match read_whole(&*source, "tokenizer.json", MAX_TEXT).await? {
            Some(bytes) => Some(Tokenizer::from_bytes(&bytes)?),
            None => None,
        };
        if let Some(tokenizer) = &tokenizer {
            tokenizer.check_vocab(config.vocab_size)?;
        }
        let tokenizer_config = read_whole(&*source, "tokenizer_config.json", MAX_TEXT).await?;
        let template = read_whole(&*source, "chat_template.jinja", MAX_TEXT).await?;
        let chat = ChatTemplates::load(tokenizer_config.as_deref(), template.as_deref())?;
        let generation = GenerationConfig::load(&*source, &config).await?;
        let pooling = Pooling::load(&*source).await?;
        let total = table.bytes();
        let weight_bytes = match options.weight_type {
            None => total,
            Some(t) => table.iter().map(|w| w.shape.iter().product::<u64>() * u64::from(t.bytes())).sum(),
        };
        let cache_bytes = config.cache_bytes(context);
        tracing::info!(
            "needs {:.1} MB for weights and {:.1} MB for keys and values of {context} tokens",
            weight_bytes as f64 / 1e6,
            cache_bytes as f64 / 1e6
        );
        let source = Arc::new(Counted { source, total, loaded: Mutex::new((0, Box::new(progress))) });
        let weights = Weights::new(source, table, WeightPolicy { force: options.weight_type });
        let network =
            arch::load(&Scope::new(weights.clone(), gpu), &config, context).await.map_err(|error| {
                let said = match &error {
                    LoadError::Op(e) => OutOfMemory::said(e),
                    LoadError::Gpu(e) => OutOfMemory::gpu(e),
                    _ => None,
                };
                let memory = said.map(|message| {
                    LoadError::from(OutOfMemory {
                        weights: weight_bytes,
                        cache: cache_bytes,
                        context,
                        message,
                    })
                });
                memory.unwrap_or(error)
            })?;
        gpu.check()?;
        let report = weights.report();
        for name in &report.unused {
            tracing::warn!("tensor {name} of the checkpoint is not used");
        }
        Ok(Arc::new(Self {
            gpu: gpu.clone(),
            config,
            network,
            tokenizer,
            chat,
            generation,
            pooling,
            context,
            weight_bytes,
            unused: report.unused,
        }))
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Tokens that a sequence can have.
    pub fn context(&self) -> u32 {
        self.context
    }

    /// Bytes of weights on the GPU.
    pub fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }

    /// Tensors of the checkpoint that the architecture does not use.
    pub fn unused_tensors(&self) -> &[String] {
        &self.unused
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// A checkpoint without one.
    pub fn tokenizer(&self) -> Result<&Tokenizer, RunError> {
        self.tokenizer.as_ref().ok_or(RunError::NoTokenizer)
    }

    /// The chat templates and special tokens of the checkpoint.
    pub fn chat(&self) -> &ChatTemplates {
        &self.chat
    }

    /// Id of a special token, by its name in the tokenizer's configuration: `bos_token`, `pad_token`.
    pub fn special_id(&self, name: &str) -> Option<u32> {
        self.tokenizer.as_ref()?.token_to_id(self.chat.special(name)?)
    }

    /// The token that texts begin with, if the tokenizer puts one in front.
    pub fn bos_id(&self) -> Option<u32> {
        let first = self.tokenizer.as_ref()?.encode("", true).ok()?.first().copied()?;
        let bos = self.special_id("bos_token").or(self.config.bos_token_id);
        (bos == Some(first)).then_some(first)
    }

    /// Defaults of the checkpoint for generation.
    pub fn generation(&self) -> &GenerationConfig {
        &self.generation
    }

    /// How token states become an embedding.
    pub fn pooling(&self) -> &Pooling {
        &self.pooling
    }

    /// The decoder.
    ///
    /// # Errors
    /// The model is an encoder.
    pub fn decoder(&self) -> Result<&Decoder, RunError> {
        match &self.network {
            Network::Decoder(decoder) => Ok(decoder),
            Network::Encoder(_) => Err(RunError::NotADecoder { model_type: self.config.model_type.clone() }),
        }
    }

    /// The encoder, if the model is one.
    pub fn encoder(&self) -> Option<&Encoder> {
        match &self.network {
            Network::Encoder(encoder) => Some(encoder),
            Network::Decoder(_) => None,
        }
    }

    /// Token ids of a text as [`Model::embed`] wants them: with the tokenizer's special tokens and, for models
    /// that pool the last token, the end token that they were trained with.
    ///
    /// # Errors
    /// A checkpoint without a tokenizer, text that it cannot encode.
    pub fn embedding_ids(&self, text: &str) -> Result<Vec<u32>, RunError> {
        let tokenizer = self.tokenizer()?;
        let mut ids = tokenizer.encode(text, true)?;
        if let (Pooling { mode: crate::pooling::Mode::LastToken, .. }, Some(end)) =
            (&self.pooling, self.special_id("pad_token"))
            && ids.last() != Some(&end)
        {
            ids.push(end);
        }
        Ok(ids)
    }

    /// States of the last layer for several sequences, `[T, C]` each. Encoders take segment ids (all zero if
    /// `None`).
    ///
    /// # Errors
    /// Empty or too long sequences, ids out of range, a device that fails.
    pub async fn states(
        self: &Arc<Self>,
        sequences: &[Vec<u32>],
        segments: Option<&[Vec<u32>]>,
        trace: Option<&mut Trace>,
    ) -> Result<Vec<Vec<f32>>, RunError> {
        let longest = sequences.iter().map(Vec::len).max().unwrap_or(0);
        if sequences.is_empty() || sequences.iter().any(Vec::is_empty) {
            return Err(RunError::EmptyPrompt);
        }
        if longest > self.context as usize {
            return Err(RunError::PromptTooLong { length: longest, context: self.context });
        }
        if let Some(&id) = sequences.iter().flatten().find(|&&id| id >= self.config.vocab_size) {
            return Err(RunError::TokenId { id, vocab_size: self.config.vocab_size });
        }
        if let Some(segments) = segments {
            let bad = |what, got: usize, want| {
                Err(OpError::Value { op: "embedding of segments", what, got: got as f64, want }.into())
            };
            let types = self.config.type_vocab_size;
            let lengths = |list: &[Vec<u32>]| list.iter().map(Vec::len).collect::<Vec<_>>();
            if lengths(segments) != lengths(sequences) {
                let want = format!("{:?}, one for each token", lengths(sequences));
                return bad("ids", segments.iter().map(Vec::len).sum(), want);
            }
            if let Some(&id) = segments.iter().flatten().find(|&&id| id >= types) {
                return bad("id", id as usize, format!("below {types}, the segments of the model"));
            }
        }
        let states = match &self.network {
            Network::Encoder(encoder) => {
                let ids: Vec<u32> = match segments {
                    Some(segments) => segments.concat(),
                    None => vec![0; sequences.iter().map(Vec::len).sum()],
                };
                let chunks: Vec<Chunk<'_>> = (0..)
                    .zip(sequences)
                    .map(|(slot, token_ids)| Chunk { slot, start: 0, token_ids })
                    .collect();
                let batch = Batch::upload(&self.gpu, &chunks)?;
                let segment_ids = Tensor::from_u32(&self.gpu, &ids, &[batch.num_tokens()])?;
                let mut frame = Frame::new(&self.gpu);
                let states = encoder.forward(&mut frame, &batch, &segment_ids, trace)?;
                frame.submit()?;
                states
            }
            Network::Decoder(_) => {
                let options = SessionOptions {
                    context: Some(longest as u32),
                    slots: sequences.len() as u32,
                    ..SessionOptions::default()
                };
                let mut session = Session::new(self, options)?;
                let inputs: Vec<Input<'_>> =
                    (0..).zip(sequences).map(|(slot, token_ids)| Input { slot, token_ids }).collect();
                session.hidden(&inputs, trace)?
            }
        };
        let values = states.to_f32(&self.gpu).await?;
        let mut rest = values.as_slice();
        let channels = self.config.hidden_size as usize;
        Ok(sequences
            .iter()
            .map(|s| {
                let (states, tail) = rest.split_at(s.len() * channels);
                rest = tail;
                states.to_vec()
            })
            .collect())
    }

    /// `tanh(W h_0 + b)` of the first token's state: BERT's pooler output, `[C]`.
    ///
    /// # Errors
    /// A model without a pooler, and as [`Model::states`].
    pub async fn pooler(
        self: &Arc<Self>,
        ids: &[u32],
        segments: Option<&[u32]>,
    ) -> Result<Vec<f32>, RunError> {
        let Some(pooler) = self.encoder().and_then(|e| e.pooler.as_ref()) else {
            return Err(RunError::NoPooler { model_type: self.config.model_type.clone() });
        };
        let segments = segments.map(|s| vec![s.to_vec()]);
        let states = self.states(&[ids.to_vec()], segments.as_deref(), None).await?;
        let first = &states[0][..self.config.hidden_size as usize];
        let first = Tensor::from_f32(&self.gpu, first, &[1, self.config.hidden_size])?;
        let mut frame = Frame::new(&self.gpu);
        // tanh is a soft cap at 1.
        let fused = girih_ops::Linear { act: girih_ops::Act::SoftCap(1.0), ..girih_ops::Linear::default() };
        let pooled = pooler.forward(&mut frame, &first, fused)?;
        frame.submit()?;
        Ok(pooled.to_f32(&self.gpu).await?)
    }

    /// One vector per sequence, pooled (and normalised) as the checkpoint says. Any number of sequences: they are
    /// run in groups.
    ///
    /// # Errors
    /// As [`Model::states`].
    pub async fn embed(self: &Arc<Self>, sequences: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, RunError> {
        let channels = self.config.hidden_size as usize;
        let mut vectors = Vec::with_capacity(sequences.len());
        let mut left = sequences;
        while !left.is_empty() {
            let mut longest = 0;
            let fits = left.iter().zip(1..).take_while(|(s, count)| {
                longest = s.len().max(longest);
                longest * count <= EMBED_TOKENS
            });
            let (group, tail) = left.split_at(fits.count().max(1));
            let states = self.states(group, None, None).await?;
            vectors.extend(states.iter().map(|s| self.pooling.apply(s, channels)));
            left = tail;
        }
        Ok(vectors)
    }
}
