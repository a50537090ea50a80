//! A checkpoint on the GPU with everything that belongs to it.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use girih_ops::Gpu;

use crate::checkpoint::format;
use crate::checkpoint::quantized::Quantization;
use crate::checkpoint::source::{BoxFuture, ByteSource, Callback, Sendable, read_whole};
use crate::checkpoint::table::TensorTable;
use crate::checkpoint::weights::Weights;
use crate::error::{LoadError, OutOfMemory, RunError};
use crate::network::arch::{self, Network};
use crate::network::config::Config;
use crate::network::experts::ExpertCache;
use crate::network::layers::{Block, Decoder, Encoder, EncoderLayer, Linear, Mixture, Scope};
use crate::run::embedding_config::{EmbeddingConfig, Prompts};
use crate::run::generation_config::GenerationConfig;
use crate::run::memory::{self, Choice, Offer};
use crate::run::options::{DEFAULT_CONTEXT, LoadOptions};
use crate::run::pooling::Pooling;
use crate::text::chat::{ChatTemplates, Conversation};
use crate::text::tokenizer::Tokenizer;

/// Bytes of a text file of a checkpoint at most: parsed, it takes some 30 times as much.
const MAX_TEXT: u64 = 16 << 20;

/// Reads `config.json`.
///
/// # Errors
/// A file that is missing or malformed, values that no model can have.
pub async fn load_config(source: &dyn ByteSource) -> Result<Config, LoadError> {
    const FILE: &str = "config.json";
    let bytes = read_whole(source, FILE, MAX_TEXT).await?;
    Config::parse(&bytes.ok_or_else(|| LoadError::NoFile { file: FILE.into() })?)
}

/// The token that a template writes behind an answer. A template that refuses the conversation has none.
fn end_of_answer(chat: &ChatTemplates, tokenizer: &Tokenizer) -> Option<u32> {
    const ANSWER: &str = "forty-two";
    let conversation = Conversation {
        messages: serde_json::json!([
            {"role": "user", "content": "What is six times seven?"},
            {"role": "assistant", "content": ANSWER},
        ]),
        now: Some(0),
        ..Conversation::default()
    };
    let text = chat.render(&conversation).ok()?;
    tokenizer.added_prefix(text.rsplit_once(ANSWER)?.1.trim_start())
}

/// What to say of tokens that the model has no embedding for.
fn beyond(tokenizer: &Tokenizer, vocab_size: u32) -> Option<String> {
    let tokens = tokenizer.beyond(vocab_size);
    let (id, token) = tokens.first()?;
    Some(format!(
        "{} of the tokenizer's tokens have no embedding, {token:?} with id {id} first (the model has {vocab_size}): a \
         prompt with one is refused",
        tokens.len()
    ))
}

/// A loaded model.
#[derive(Debug)]
pub struct Model {
    gpu: Gpu,
    config: Config,
    network: Network,
    experts: Option<Arc<ExpertCache>>,
    tokenizer: Option<Tokenizer>,
    chat: ChatTemplates,
    generation: GenerationConfig,
    embedding: EmbeddingConfig,
    context: u32,
    weight_bytes: u64,
    parameters: u64,
    unused: Vec<String>,
    notes: Vec<String>,
}

/// Reports what is read through it.
struct Counted {
    source: Arc<dyn ByteSource>,
    total: u64,
    loaded: Mutex<(u64, Callback<Progress>)>,
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
    /// Loads a checkpoint folder or GGUF file: config, weights, tokenizer, template.
    ///
    /// # Errors
    /// Files that are missing or malformed, an architecture that is not known, tensors that are missing or have
    /// other shapes, memory that does not suffice.
    pub async fn load(
        gpu: &Gpu,
        source: Arc<dyn ByteSource>,
        options: LoadOptions,
        progress: impl FnMut(Progress) + Sendable + 'static,
    ) -> Result<Arc<Self>, LoadError> {
        Self::loading(gpu, source, options, Box::new(progress)).await
    }

    /// In a box that is made where nothing is generic: compiled once, here, and not in every program that loads a model.
    #[inline(never)]
    fn loading(
        gpu: &Gpu,
        source: Arc<dyn ByteSource>,
        options: LoadOptions,
        progress: Callback<Progress>,
    ) -> BoxFuture<'_, Result<Arc<Self>, LoadError>> {
        Box::pin(Self::load_telling(gpu, source, options, progress))
    }

    async fn load_telling(
        gpu: &Gpu,
        source: Arc<dyn ByteSource>,
        options: LoadOptions,
        progress: Callback<Progress>,
    ) -> Result<Arc<Self>, LoadError> {
        let source = format::checkpoint(source, &arch::KNOWN).await?;
        let config = load_config(&*source).await?;
        let table = TensorTable::open(&*source).await?;
        let limit = config.max_context;
        let context = options.context.unwrap_or(limit.min(DEFAULT_CONTEXT));
        if context == 0 || context > limit {
            return Err(LoadError::Context { got: context, limit });
        }
        let embedding = EmbeddingConfig::load(&*source, &config).await?;
        // What is only recorded needs no texts.
        let texts = !gpu.is_recording_only();
        let mut tokenizer = if texts { Tokenizer::load(&*source).await? } else { None };
        if let Some(tokenizer) = tokenizer.as_mut().filter(|_| embedding.lower_case) {
            tokenizer.lower_case()?;
        }
        let chat = if texts { ChatTemplates::read(&*source).await? } else { ChatTemplates::default() };
        let generation = GenerationConfig::load(&*source, &config).await?;
        let mut text_notes = generation.notes.clone();
        if let Some(tokenizer) = &tokenizer {
            text_notes.extend_from_slice(tokenizer.notes());
            text_notes.extend(beyond(tokenizer, config.vocab_size));
        }
        for note in &text_notes {
            tracing::warn!("{note}");
        }
        let total = table.bytes();
        let source = Arc::new(Counted { source, total, loaded: Mutex::new((0, progress)) });
        let quantization = Quantization::open(&*source, &config.raw, &table).await?;
        for note in &quantization.notes {
            tracing::warn!("{note}");
        }
        let asked = Choice::new(options.weights.force, context, options.session);
        let dense = quantization.modules.is_empty();
        let weighed = table.clone();
        let memory_of_experts = options.experts.map(|experts| experts.bytes);
        let needs = |choice: &Choice| {
            let weights = memory::weight_bytes(&weighed, choice.weights, memory_of_experts);
            memory::demand(&config, weights, choice)
        };
        tracing::info!("needs {}", needs(&asked));
        if let Some(refused) = memory::refusal(&asked, dense, &Offer::of(gpu.caps()), needs) {
            return Err(refused.into());
        }
        let weights = Weights::with_quantization(source, table, quantization, options.weights);
        let experts = options.experts.map(ExpertCache::new);
        let scope = Scope::new(weights.clone(), gpu).with_experts(experts.clone());
        let loading = async {
            let network = arch::load(&scope, &config, context).await?;
            if let Some(experts) = &experts {
                weights.place(experts.allocate(gpu)?[1], 0);
                if let Network::Decoder(decoder) = &network {
                    let all = || decoder.blocks.iter().filter_map(|block| block.feed_forward().mixture());
                    all().zip(all().skip(1)).for_each(|(mixture, next)| mixture.precede(next));
                }
            }
            Ok(network)
        };
        let network = loading.await.map_err(|error| {
            let said = match &error {
                LoadError::Op(e) => OutOfMemory::said(e),
                LoadError::Gpu(e) => OutOfMemory::gpu(e),
                _ => None,
            };
            let memory = said.map(|message| memory::exhausted(&asked, dense, message, needs));
            memory.map_or(error, LoadError::from)
        })?;
        gpu.check()?;
        let report = weights.report();
        if weights.table().is_used_as_a_whole() && !report.unused.is_empty() {
            let model_type = config.model_type.clone();
            return Err(LoadError::UnusedTensors { model_type, tensors: report.unused });
        }
        for name in &report.unused {
            tracing::warn!("tensor {name} of the checkpoint is not used");
        }
        Ok(Arc::new(Self {
            gpu: gpu.clone(),
            config,
            network,
            experts,
            tokenizer,
            chat,
            generation,
            embedding,
            context,
            weight_bytes: weights.placed_bytes(),
            parameters: weights.placed_parameters(),
            unused: report.unused,
            notes: report.notes.into_iter().chain(text_notes).collect(),
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

    /// The cache of its experts, if not all of them are on the GPU.
    pub fn experts(&self) -> Option<&Arc<ExpertCache>> {
        self.experts.as_ref()
    }

    /// Bytes of weights on the GPU.
    pub fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }

    /// Numbers in its matrices and vectors; those of a tied head count once.
    pub fn parameters(&self) -> u64 {
        self.parameters
    }

    /// Tensors of the checkpoint that the architecture does not use.
    pub fn unused_tensors(&self) -> &[String] {
        &self.unused
    }

    /// What was loaded in another way than it is stored, and what of the checkpoint's description does not count.
    pub fn notes(&self) -> &[String] {
        &self.notes
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
        let tokenizer = self.tokenizer.as_ref()?;
        tokenizer.token_to_id(tokenizer.named(name).or_else(|| self.chat.special(name))?)
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

    /// Tokens that end a text: those that generation_config.json or config.json names, and the tokenizer's eos_token.
    /// Files of one checkpoint often name different ones, and a model that writes any of them has ended.
    pub fn stop_ids(&self) -> Vec<u32> {
        let named = self.generation.eos_token_ids.iter().chain(&self.config.eos_token_ids).copied();
        let mut ids = Vec::new();
        for id in named.chain(self.special_id("eos_token")) {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        ids
    }

    /// As [`Model::stop_ids`], for an answer: also the token that a chat template writes behind one, if it does and the
    /// token is one that was added to the vocabulary.
    pub fn answer_stop_ids(&self, chat: &ChatTemplates) -> Vec<u32> {
        let mut ids = self.stop_ids();
        let end = self.tokenizer.as_ref().and_then(|tokenizer| end_of_answer(chat, tokenizer));
        ids.extend(end.filter(|id| !ids.contains(id)));
        ids
    }

    /// How token states become an embedding.
    pub fn pooling(&self) -> &Pooling {
        &self.embedding.pooling
    }

    /// What may stand in front of a text that is embedded.
    pub fn prompts(&self) -> &Prompts {
        &self.embedding.prompts
    }

    /// How texts become embeddings.
    pub fn embedding(&self) -> &EmbeddingConfig {
        &self.embedding
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

    /// The linear layers of its blocks, in the order in which they are used: all but head, embeddings and pooler.
    pub fn linears(&self) -> Vec<&Linear> {
        match &self.network {
            Network::Decoder(decoder) => decoder.blocks.iter().flat_map(Block::linears).collect(),
            Network::Encoder(encoder) => encoder.layers.iter().flat_map(EncoderLayer::linears).collect(),
        }
    }

    /// The mixtures of experts of its blocks, with the indices of their layers.
    pub fn mixtures(&self) -> Vec<(u32, &Mixture)> {
        let Network::Decoder(decoder) = &self.network else { return Vec::new() };
        let blocks = (0..).zip(&decoder.blocks);
        blocks.filter_map(|(layer, block)| Some((layer, block.feed_forward().mixture()?))).collect()
    }

    /// The encoder, if the model is one.
    pub fn encoder(&self) -> Option<&Encoder> {
        match &self.network {
            Network::Encoder(encoder) => Some(encoder),
            Network::Decoder(_) => None,
        }
    }
}
