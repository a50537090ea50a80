//! Checkpoints of real shapes with random weights, for benches without a download.

use std::fmt::Write as _;
use std::ops::Range;

use crate::checkpoint::source::{BoxFuture, ByteSource};
use crate::error::LoadError;

/// Shape of a synthetic Llama.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// Name on the command line.
    pub name: &'static str,
    /// C.
    pub hidden_size: u32,
    /// F.
    pub intermediate_size: u32,
    /// Layers.
    pub num_layers: u32,
    /// Query heads.
    pub num_q_heads: u32,
    /// Key/value heads.
    pub num_kv_heads: u32,
    /// Channels of a head.
    pub head_dim: u32,
    /// V.
    pub vocab_size: u32,
}

/// Known presets; all have tied embeddings and f16 weights.
pub const PRESETS: &[Preset] = &[
    Preset {
        name: "llama-79m",
        hidden_size: 768,
        intermediate_size: 2048,
        num_layers: 12,
        num_q_heads: 12,
        num_kv_heads: 4,
        head_dim: 64,
        vocab_size: 4096,
    },
    // More bytes than the memory of a WASM module may take, in layers that a CPU device computes in time.
    Preset {
        name: "llama-300mb",
        hidden_size: 768,
        intermediate_size: 2048,
        num_layers: 22,
        num_q_heads: 12,
        num_kv_heads: 4,
        head_dim: 64,
        vocab_size: 16_384,
    },
    Preset {
        name: "llama-3.2-1b",
        hidden_size: 2048,
        intermediate_size: 8192,
        num_layers: 16,
        num_q_heads: 32,
        num_kv_heads: 8,
        head_dim: 64,
        vocab_size: 128_256,
    },
    Preset {
        name: "llama-3.1-8b",
        hidden_size: 4096,
        intermediate_size: 14_336,
        num_layers: 32,
        num_q_heads: 32,
        num_kv_heads: 8,
        head_dim: 128,
        vocab_size: 128_256,
    },
];

/// A checkpoint folder that exists only as a rule: its bytes are made when they are read.
#[derive(Debug)]
pub struct SyntheticSource {
    config: Vec<u8>,
    header: Vec<u8>,
    data_bytes: u64,
    /// Seeded f16 values; tensors read overlapping windows of it.
    block: Vec<u8>,
}

const FILE: &str = "model.safetensors";

impl SyntheticSource {
    /// The checkpoint of a preset.
    ///
    /// # Errors
    /// A name that no preset has.
    pub fn new(name: &str) -> Result<Self, LoadError> {
        let preset = PRESETS.iter().find(|p| p.name == name).ok_or_else(|| LoadError::UnknownPreset {
            got: name.into(),
            known: PRESETS.iter().map(|p| p.name).collect::<Vec<_>>().join(", "),
        })?;
        let Preset { hidden_size: c, intermediate_size: f, num_layers, vocab_size: v, .. } = *preset;
        let (q, kv) = (preset.num_q_heads * preset.head_dim, preset.num_kv_heads * preset.head_dim);
        let config = serde_json::json!({
            "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": v, "hidden_size": c,
            "intermediate_size": f, "num_hidden_layers": num_layers, "num_attention_heads": preset.num_q_heads,
            "num_key_value_heads": preset.num_kv_heads, "head_dim": preset.head_dim, "hidden_act": "silu",
            "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 500_000.0,
            "tie_word_embeddings": true, "torch_dtype": "float16",
        });
        let mut tensors: Vec<(String, Vec<u32>)> =
            vec![("model.embed_tokens.weight".into(), vec![v, c]), ("model.norm.weight".into(), vec![c])];
        for i in 0..num_layers {
            for (name, shape) in [
                ("input_layernorm", vec![c]),
                ("post_attention_layernorm", vec![c]),
                ("self_attn.q_proj", vec![q, c]),
                ("self_attn.k_proj", vec![kv, c]),
                ("self_attn.v_proj", vec![kv, c]),
                ("self_attn.o_proj", vec![c, q]),
                ("mlp.gate_proj", vec![f, c]),
                ("mlp.up_proj", vec![f, c]),
                ("mlp.down_proj", vec![c, f]),
            ] {
                tensors.push((format!("model.layers.{i}.{name}.weight"), shape));
            }
        }
        let mut header = String::from("{");
        let mut end = 0;
        for (name, shape) in &tensors {
            let bytes = 2 * shape.iter().map(|&d| u64::from(d)).product::<u64>();
            let comma = if end == 0 { "" } else { "," };
            let _ = write!(
                header,
                r#"{comma}"{name}":{{"dtype":"F16","shape":{shape:?},"data_offsets":[{end},{}]}}"#,
                end + bytes
            );
            end += bytes;
        }
        header.push('}');
        while header.len() % 8 != 0 {
            header.push(' ');
        }
        let header = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
        // Values of the size that trained weights have: activations stay in range through all layers.
        let mut state = 1u64;
        let block = (0..1 << 21)
            .flat_map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let unit = (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0;
                half::f16::from_f32(unit * 0.05).to_le_bytes()
            })
            .collect();
        Ok(Self { config: config.to_string().into_bytes(), header, data_bytes: end, block })
    }

    fn bytes(&self, file: &str, range: Range<u64>) -> Vec<u8> {
        if file == "config.json" {
            return self.config[range.start as usize..range.end as usize].to_vec();
        }
        let header = self.header.len() as u64;
        let mut out = Vec::with_capacity((range.end - range.start) as usize);
        if range.start < header {
            out.extend_from_slice(&self.header[range.start as usize..range.end.min(header) as usize]);
        }
        let mut at = range.start.max(header);
        while at < range.end {
            let offset = ((at - header) % self.block.len() as u64) as usize;
            let take = (self.block.len() - offset).min((range.end - at) as usize);
            out.extend_from_slice(&self.block[offset..offset + take]);
            at += take as u64;
        }
        out
    }
}

impl ByteSource for SyntheticSource {
    fn read<'a>(&'a self, file: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Vec<u8>, LoadError>> {
        Box::pin(async move { Ok(self.bytes(file, range)) })
    }

    fn size<'a>(&'a self, file: &'a str) -> BoxFuture<'a, Result<Option<u64>, LoadError>> {
        let size = match file {
            "config.json" => Some(self.config.len() as u64),
            FILE => Some(self.header.len() as u64 + self.data_bytes),
            _ => None,
        };
        Box::pin(async move { Ok(size) })
    }
}
