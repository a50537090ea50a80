//! Ragged batches and the cache they append to.

use bytemuck::{Pod, Zeroable};
use girih_kernels::{Buffer, Gpu};

use crate::tensor::elements;
use crate::{OpError, Tensor};

/// One sequence's part of a batch, on the host.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// Slot of the sequence in the cache.
    pub slot: u32,
    /// Position of the first token: the number of tokens of the sequence that are already in the cache.
    pub start: u32,
    /// New tokens.
    pub token_ids: &'a [u32],
}

/// One sequence's part of a batch, as kernels read it: `struct Seq` of `common/batch.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Seq {
    /// First row of the sequence among the batch's tokens.
    pub q_base: u32,
    /// Rows of the sequence.
    pub q_len: u32,
    /// Keys of the sequence after this batch has been appended. Row i has position `kv_len - q_len + i`.
    pub kv_len: u32,
    /// Slot of the sequence in the cache.
    pub slot: u32,
}

/// Tokens of several sequences, packed without padding. Everything that changes from token to token in decoding
/// lives in these buffers, so that a plan can advance them on the GPU.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Token ids, u32 `[T]`.
    pub token_ids: Tensor,
    /// Positions, u32 `[T]`.
    pub positions: Tensor,
    /// Index into `seqs` of each token, u32 `[T]`.
    pub seq_of_token: Tensor,
    /// [`Seq`] of each sequence, u32 `[S, 4]`.
    pub seqs: Tensor,
    /// Longest `q_len`.
    pub max_q_len: u32,
    /// Largest `kv_len` that the batch can have when it is run: sizes loops and grids, never results.
    pub max_kv_len: u32,
}

impl Batch {
    /// Uploads chunks.
    ///
    /// # Errors
    /// No tokens at all, an empty chunk, memory that is exhausted.
    pub fn upload(gpu: &Gpu, chunks: &[Chunk<'_>]) -> Result<Self, OpError> {
        let (mut ids, mut positions, mut seq_of_token, mut seqs) = (vec![], vec![], vec![], vec![]);
        for (i, chunk) in chunks.iter().enumerate() {
            let len = chunk.token_ids.len();
            let bad =
                |what, got: f64, want: &str| OpError::Value { op: "batch", what, got, want: want.into() };
            if len == 0 {
                return Err(bad("tokens of a chunk", 0.0, "at least 1"));
            }
            let end = u32::try_from(len).ok().and_then(|len| chunk.start.checked_add(len));
            let Some(kv_len) = end else {
                let got = f64::from(chunk.start) + len as f64;
                return Err(bad("position behind a chunk", got, "below 2^32"));
            };
            let Some(q_base) = u32::try_from(ids.len() + len).ok().map(|end| end - len as u32) else {
                return Err(bad("tokens", (ids.len() + len) as f64, "below 2^32"));
            };
            let q_len = len as u32;
            seqs.push(Seq { q_base, q_len, kv_len, slot: chunk.slot });
            ids.extend_from_slice(chunk.token_ids);
            positions.extend(chunk.start..kv_len);
            seq_of_token.extend((0..q_len).map(|_| i as u32));
        }
        // Each chunk has a token, and there are fewer than 2^32 of them.
        let num_tokens = ids.len() as u32;
        let num_seqs = seqs.len() as u32;
        let max = |f: fn(&Seq) -> u32| seqs.iter().map(f).max().unwrap_or(0);
        if num_tokens == 0 {
            return Err(OpError::Value { op: "batch", what: "tokens", got: 0.0, want: "at least 1".into() });
        }
        Ok(Self {
            token_ids: Tensor::from_u32(gpu, &ids, &[num_tokens])?,
            positions: Tensor::from_u32(gpu, &positions, &[num_tokens])?,
            seq_of_token: Tensor::from_u32(gpu, &seq_of_token, &[num_tokens])?,
            seqs: Tensor::from_u32(gpu, bytemuck::cast_slice(&seqs), &[num_seqs, 4])?,
            max_q_len: max(|s| s.q_len),
            max_kv_len: max(|s| s.kv_len),
        })
    }

    /// Number of tokens T.
    pub fn num_tokens(&self) -> u32 {
        self.token_ids.len() as u32
    }

    /// Number of sequences S.
    pub fn num_seqs(&self) -> u32 {
        self.seqs.shape()[0]
    }
}

/// Keys and values of one layer. Channel `c` of a key lies at element
/// `slot * slot_stride + head * head_stride + token * token_stride + c`; of a value likewise with its own strides.
#[derive(Clone, Debug)]
pub struct KvView {
    /// Keys.
    pub k: Buffer,
    /// Values.
    pub v: Buffer,
    /// Element type: f32, or f16 packed two to a word.
    pub f16: bool,
    /// Heads.
    pub num_kv_heads: u32,
    /// Channels of a key.
    pub head_dim: u32,
    /// Channels of a value.
    pub value_dim: u32,
    /// Layout of the keys.
    pub k_strides: Strides,
    /// Layout of the values.
    pub v_strides: Strides,
}

/// Distances in elements; all are multiples of 4 where the head dims are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strides {
    /// From one slot (sequence) to the next.
    pub slot: u32,
    /// From one head to the next.
    pub head: u32,
    /// From one token to the next.
    pub token: u32,
}

/// Size of the cache of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvSize {
    /// Sequences.
    pub slots: u32,
    /// Key and value heads.
    pub num_kv_heads: u32,
    /// Tokens of a sequence.
    pub capacity: u32,
    /// Channels of a head.
    pub head_dim: u32,
    /// Elements are f16 instead of f32.
    pub f16: bool,
}

/// Size of the cache of a layer with multi-head latent attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatentSize {
    /// Sequences.
    pub slots: u32,
    /// Tokens of a sequence.
    pub capacity: u32,
    /// Channels L of a latent.
    pub latent_dim: u32,
    /// Rotated channels R behind it.
    pub rope_dim: u32,
    /// Elements are f16 instead of f32.
    pub f16: bool,
}

impl KvView {
    /// Zeroed latents with their rotated parts, laid out `[slots, capacity, L + R]`: the one key head that all query heads
    /// read. Values are the first L channels of the keys, in the same memory.
    ///
    /// # Errors
    /// Memory that is exhausted, sizes over a limit of the device.
    pub fn alloc_latent(gpu: &Gpu, size: LatentSize) -> Result<Self, OpError> {
        let LatentSize { slots, capacity, latent_dim, rope_dim, f16 } = size;
        let Some(head_dim) = latent_dim.checked_add(rope_dim) else {
            let got = f64::from(latent_dim) + f64::from(rope_dim);
            let want = "below 2^32".into();
            return Err(OpError::Value { op: "kv_cache", what: "channels of a latent", got, want });
        };
        let k = gpu.alloc(layer_bytes(gpu, &[slots, capacity, head_dim], f16)?)?;
        let strides = Strides { slot: capacity * head_dim, head: capacity * head_dim, token: head_dim };
        Ok(Self {
            v: k.clone(),
            k,
            f16,
            num_kv_heads: 1,
            head_dim,
            value_dim: latent_dim,
            k_strides: strides,
            v_strides: strides,
        })
    }

    /// Bytes of GPU memory.
    pub fn bytes(&self) -> u64 {
        let apart = if self.k.overlaps(&self.v) { 0 } else { self.v.size() };
        self.k.size() + apart
    }

    /// Whether the sequences of a batch fit.
    pub(crate) fn check_capacity(&self, op: &'static str, batch: &Batch) -> Result<(), OpError> {
        for (what, strides) in [
            ("keys that the cache can hold", self.k_strides),
            ("values that the cache can hold", self.v_strides),
        ] {
            let head = if self.num_kv_heads > 1 { strides.head } else { strides.slot };
            let next = [head, strides.slot].into_iter().filter(|&s| s > strides.token).min();
            let capacity = next.map_or(u32::MAX, |next| next / strides.token.max(1));
            if batch.max_kv_len > capacity {
                let want = format!("at least {}, the batch's max_kv_len", batch.max_kv_len);
                return Err(OpError::Value { op, what, got: capacity.into(), want });
            }
        }
        Ok(())
    }

    /// Zeroed keys and values, laid out `[slots, num_kv_heads, capacity, head_dim]`.
    ///
    /// # Errors
    /// Memory that is exhausted, sizes over a limit of the device.
    pub fn alloc(gpu: &Gpu, size: KvSize) -> Result<Self, OpError> {
        let KvSize { slots, num_kv_heads, capacity, head_dim, f16 } = size;
        let bytes = layer_bytes(gpu, &[slots, num_kv_heads, capacity, head_dim], f16)?;
        let strides =
            Strides { slot: num_kv_heads * capacity * head_dim, head: capacity * head_dim, token: head_dim };
        Ok(Self {
            k: gpu.alloc(bytes)?,
            v: gpu.alloc(bytes)?,
            f16,
            num_kv_heads,
            head_dim,
            value_dim: head_dim,
            k_strides: strides,
            v_strides: strides,
        })
    }
}

/// Bytes of the keys of a layer, which fit a binding.
fn layer_bytes(gpu: &Gpu, shape: &[u32], f16: bool) -> Result<u64, OpError> {
    // Kernels count elements in 32 bits.
    let elements = elements(shape).unwrap_or(u64::MAX / 4);
    let each = if f16 { 2 } else { 4 };
    let bytes = (each * elements).next_multiple_of(4);
    let limit = gpu.caps().binding_bytes.min(each * u64::from(u32::MAX));
    if bytes <= limit {
        return Ok(bytes);
    }
    let want = format!("at most {limit} (one binding); lower the context length or the number of sequences");
    Err(OpError::Value { op: "kv_cache", what: "bytes of a layer's keys", got: bytes as f64, want })
}
