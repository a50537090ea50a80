//! Rotary position embedding, and the append to the cache that goes with it.

use girih_kernels::Gpu;
use girih_kernels::rope::rope_append as append_kernel;
use girih_kernels::rope::{Angles, Style, rotate as kernel};

use crate::{Batch, DType, Frame, KvView, OpError, Tensor};

mod latent;

pub use latent::{LatentAppend, latent_append};

/// Which channels form a pair, of the R that are rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RopeStyle {
    /// `(i, i + R/2)`
    Half,
    /// `(2i, 2i + 1)`
    Interleaved,
    /// `(2i, 2i + 1)`, written as `[all first | all second]` (DeepSeek).
    InterleavedToHalf,
}

impl RopeStyle {
    fn kernel(self) -> Style {
        match self {
            Self::Half => Style::Half,
            Self::Interleaved => Style::Interleaved,
            Self::InterleavedToHalf => Style::InterleavedToHalf,
        }
    }
}

/// Frequencies of the pairs.
#[derive(Clone, Copy, Debug)]
pub struct RopeFreqs<'a> {
    /// Radians per position, `[R/2]`.
    pub inv_freq: &'a [f32],
    /// Factor of cos and sin.
    pub attention_factor: f32,
}

/// Angles of all positions, tabulated or computed in the shader.
///
/// Either way the angle is `f32(position) · inv_freq` rounded to f32, as transformers computes it.
#[derive(Clone, Debug)]
pub struct RopeTable {
    data: Tensor,
    angles: Angles,
    num_pairs: u32,
    max_positions: u32,
    switch_len: Option<u32>,
    /// Block of the table that [`rope`] takes.
    block: u32,
}

/// Positions are exact in f32 below this, and computed angles are reduced exactly.
const MAX_POSITIONS: u32 = 1 << 24;

impl RopeTable {
    /// A table of cos and sin for positions below `max_positions`: `8 · R/2` bytes for each, twice that with `long`.
    /// Sequences with more keys than `switch_len` take the frequencies of `long` (longrope).
    ///
    /// # Errors
    /// An odd `rotary_dim`, frequencies that are not R/2 numbers, no positions, a table that exceeds a binding
    /// ([`RopeTable::computed`] needs none).
    pub fn new(
        gpu: &Gpu,
        rotary_dim: u32,
        freqs: &RopeFreqs<'_>,
        long: Option<(&RopeFreqs<'_>, u32)>,
        max_positions: u32,
    ) -> Result<Self, OpError> {
        let sets = Self::sets(rotary_dim, freqs, long)?;
        let num_pairs = rotary_dim / 2;
        let blocks = sets.len() as u32;
        let bytes = [max_positions, num_pairs, 8]
            .iter()
            .fold(u64::from(blocks), |all, &n| all.saturating_mul(n.into()));
        let limit = gpu.caps().binding_bytes.min(gpu.caps().buffer_bytes);
        if max_positions == 0 || max_positions > MAX_POSITIONS || bytes > limit {
            let want = format!(
                "1 to {} (a table of {bytes} bytes, a binding has at most {limit}); computed angles need no table",
                (limit / (8 * u64::from(num_pairs) * u64::from(blocks))).min(MAX_POSITIONS.into())
            );
            let got = f64::from(max_positions);
            return Err(OpError::Value { op: "rope_table", what: "max_positions", got, want });
        }
        let mut table = Vec::with_capacity((bytes / 4) as usize);
        for set in &sets {
            let factor = f64::from(set.attention_factor);
            for position in 0..max_positions {
                for &inv_freq in set.inv_freq {
                    let (sin, cos) = f64::from(position as f32 * inv_freq).sin_cos();
                    table.extend([(cos * factor) as f32, (sin * factor) as f32]);
                }
            }
        }
        Ok(Self {
            data: Tensor::from_f32(gpu, &table, &[blocks, max_positions, num_pairs, 2])?,
            angles: Angles::Table,
            num_pairs,
            max_positions,
            switch_len: long.map(|(_, len)| len),
            block: 0,
        })
    }

    /// No table: the shader computes angles below 2^24 with exact range reduction; usual frequencies are at most 1, so
    /// that positions below 2^24 have them.
    ///
    /// # Errors
    /// An odd `rotary_dim`, frequencies that are not R/2 numbers.
    pub fn computed(
        gpu: &Gpu,
        rotary_dim: u32,
        freqs: &RopeFreqs<'_>,
        long: Option<(&RopeFreqs<'_>, u32)>,
    ) -> Result<Self, OpError> {
        let sets = Self::sets(rotary_dim, freqs, long)?;
        let pairs = |set: &&RopeFreqs<'_>| -> Vec<f32> {
            set.inv_freq.iter().flat_map(|&f| [f, set.attention_factor]).collect()
        };
        let data: Vec<f32> = sets.iter().flat_map(pairs).collect();
        let num_pairs = rotary_dim / 2;
        let fastest = sets.iter().flat_map(|set| set.inv_freq).fold(0.0f32, |m, &f| m.max(f));
        Ok(Self {
            data: Tensor::from_f32(gpu, &data, &[sets.len() as u32, num_pairs, 2])?,
            angles: Angles::Computed,
            num_pairs,
            max_positions: (MAX_POSITIONS as f32 / fastest.max(1.0)) as u32,
            switch_len: long.map(|(_, len)| len),
            block: 0,
        })
    }

    fn sets<'a>(
        rotary_dim: u32,
        freqs: &'a RopeFreqs<'a>,
        long: Option<(&'a RopeFreqs<'a>, u32)>,
    ) -> Result<Vec<&'a RopeFreqs<'a>>, OpError> {
        const OP: &str = "rope_table";
        if rotary_dim == 0 || !rotary_dim.is_multiple_of(2) {
            let want = "even and positive".into();
            return Err(OpError::Value { op: OP, what: "rotary_dim", got: f64::from(rotary_dim), want });
        }
        let sets: Vec<_> = [freqs].into_iter().chain(long.map(|(freqs, _)| freqs)).collect();
        for set in &sets {
            let got = set.inv_freq.len();
            if got != rotary_dim as usize / 2 {
                let want = format!("{} (rotary_dim / 2)", rotary_dim / 2);
                return Err(OpError::Value { op: OP, what: "number of frequencies", got: got as f64, want });
            }
            if let Some(&bad) = set.inv_freq.iter().find(|f| !(0.0..1e6).contains(*f)) {
                let want = "0 to 1e6".into();
                return Err(OpError::Value { op: OP, what: "a frequency", got: f64::from(bad), want });
            }
        }
        Ok(sets)
    }

    /// Channels R that are rotated.
    pub fn rotary_dim(&self) -> u32 {
        2 * self.num_pairs
    }

    /// Sequences with more keys take the second set of frequencies.
    pub fn switch_len(&self) -> Option<u32> {
        self.switch_len
    }

    /// Positions are below this.
    pub fn max_positions(&self) -> u32 {
        self.max_positions
    }

    /// Sequences with more keys than this take the second block. The long view of a table is that block, for every sequence.
    fn switch(&self) -> u32 {
        if self.block == 1 { 0 } else { self.switch_len.unwrap_or(u32::MAX) }
    }

    fn check_positions(&self, op: &'static str, batch: &Batch) -> Result<(), OpError> {
        if batch.max_kv_len <= self.max_positions {
            return Ok(());
        }
        let want = format!("at most {}, the positions of the table", self.max_positions);
        let got = f64::from(batch.max_kv_len);
        Err(OpError::Value { op, what: "max_kv_len of the batch", got, want })
    }

    /// The same angles with the long frequencies in the place of the short ones, for [`rope`], which knows no
    /// sequence lengths. `None` for a table without them.
    #[must_use]
    pub fn long(&self) -> Option<Self> {
        self.switch_len.map(|_| Self { block: 1, switch_len: None, ..self.clone() })
    }
}

/// Rotary position embedding: each pair (a, b) of the first R channels becomes `(a cos - b sin, b cos + a sin)`;
/// channels R..D pass through. Takes the first set of frequencies of a table that has two: see [`RopeTable::long`].
///
/// Positions at or above the table's `max_positions` are a mistake of the caller, who knows them; they take the
/// last row.
///
/// # Shapes
/// x `[T, H, D]`, positions u32 `[T]` → `[T, H, D]`
///
/// # Errors
/// Shapes or types that do not fit, a table for more channels than there are.
pub fn rope(
    frame: &mut Frame,
    x: &Tensor,
    positions: &Tensor,
    table: &RopeTable,
    style: RopeStyle,
) -> Result<Tensor, OpError> {
    x.expect_dtype("rope", "x", DType::F32)?;
    positions.expect_dtype("rope", "positions", DType::U32)?;
    let [num_tokens, num_heads, head_dim] = x.dims("rope", "x")?;
    positions.expect("rope", "positions", &[num_tokens])?;
    check_rotary_dim("rope", table, head_dim)?;
    let y = frame.alloc(x.shape(), DType::F32)?;
    let args = kernel::Args {
        x: x.buffer(),
        positions: positions.buffer(),
        table: table.data.buffer(),
        y: y.buffer(),
    };
    let shape = kernel::Shape {
        num_tokens,
        num_heads,
        head_dim,
        num_pairs: table.num_pairs,
        max_positions: table.max_positions,
        block: table.block,
    };
    kernel::record(frame.recorder(), args, shape, style.kernel(), table.angles)?;
    Ok(y)
}

fn check_rotary_dim(op: &'static str, table: &RopeTable, head_dim: u32) -> Result<(), OpError> {
    if table.rotary_dim() <= head_dim {
        return Ok(());
    }
    let want = format!("at most {head_dim} (head_dim)");
    Err(OpError::Value { op, what: "rotary_dim of the table", got: f64::from(table.rotary_dim()), want })
}

/// Norms of queries and keys, in front of the rotation where not said otherwise.
#[derive(Clone, Copy, Debug)]
pub enum QkNorm<'a> {
    /// None.
    None,
    /// Each head by itself (Qwen 3, Gemma 3).
    PerHead {
        /// Weight of the queries `[D]`.
        q: &'a Tensor,
        /// Weight of the keys `[D]`.
        k: &'a Tensor,
        /// Added to the mean squares.
        eps: f32,
    },
    /// The whole projection (OLMo 2).
    Full {
        /// Weight of the queries `[Hq * D]`.
        q: &'a Tensor,
        /// Weight of the keys `[Hkv * D]`.
        k: &'a Tensor,
        /// Added to the mean squares.
        eps: f32,
    },
    /// Each head by itself, a layer norm without bias whose weights differ from head to head (Cohere).
    Layer {
        /// Weight of the queries `[Hq * D]`.
        q: &'a Tensor,
        /// Weight of the keys `[Hkv * D]`.
        k: &'a Tensor,
        /// Added to the variances.
        eps: f32,
    },
    /// Each head by itself behind the rotation (Hunyuan).
    Rotated {
        /// Weight of the queries `[D]`.
        q: &'a Tensor,
        /// Weight of the keys `[D]`.
        k: &'a Tensor,
        /// Added to the mean squares.
        eps: f32,
    },
}

/// What [`rope_append`] does to queries and keys.
#[derive(Clone, Copy, Debug)]
pub struct RopeAppend<'a> {
    /// Query heads Hq.
    pub num_q_heads: u32,
    /// Norms.
    pub norm: QkNorm<'a>,
    /// Bound of the magnitudes of q and k between norm and rotation, and of v (OLMoE).
    pub clip: Option<f32>,
    /// Rotation; `None` leaves positions out (NoPE layers).
    pub rope: Option<(&'a RopeTable, RopeStyle)>,
}

/// The way from the QKV projection to the cache, in one dispatch: norms of q and k if any, rotation of q and k if
/// any, k and v appended to the cache at `(slot, head, position)`; returns the queries. Positions are those of
/// [`crate::Seq`], `kv_len - q_len + i`. A table with long frequencies takes them for sequences with more than
/// `switch_len` keys; keys that are in the cache already stay as they are.
///
/// # Shapes
/// qkv `[T, (Hq + 2 Hkv) D]`, rows `[q heads | k heads | v heads]` → `[T, Hq D]`
///
/// # Errors
/// Shapes that do not fit, a cache with other value than key dims, an odd head dim in an f16 cache, sequences that
/// may grow beyond the table or the cache.
pub fn rope_append(
    frame: &mut Frame,
    qkv: &Tensor,
    kv: &KvView,
    batch: &Batch,
    opts: &RopeAppend<'_>,
) -> Result<Tensor, OpError> {
    const OP: &str = "rope_append";
    let value = |what, got: u32, want: String| OpError::Value { op: OP, what, got: f64::from(got), want };
    let (num_q_heads, num_kv_heads, head_dim) = (opts.num_q_heads, kv.num_kv_heads, kv.head_dim);
    let (num_tokens, num_seqs) = (batch.num_tokens(), batch.num_seqs());
    qkv.expect_dtype(OP, "qkv", DType::F32)?;
    let width = num_kv_heads.saturating_mul(2).saturating_add(num_q_heads).saturating_mul(head_dim);
    qkv.expect(OP, "qkv", &[num_tokens, width])?;
    if kv.value_dim != head_dim {
        return Err(value("channels of a value", kv.value_dim, format!("{head_dim}, as of a key")));
    }
    if kv.f16 && !head_dim.is_multiple_of(2) {
        return Err(value("head_dim", head_dim, "even in an f16 cache (two channels share a word)".into()));
    }
    kv.check_capacity(OP, batch)?;
    let (norm, norms, eps) = match opts.norm {
        QkNorm::None => (append_kernel::Norm::None, None, 0.0),
        QkNorm::PerHead { q, k, eps } | QkNorm::Rotated { q, k, eps } => {
            q.expect(OP, "weight of the q norm", &[head_dim])?;
            k.expect(OP, "weight of the k norm", &[head_dim])?;
            let behind = matches!(opts.norm, QkNorm::Rotated { .. });
            let norm = if behind { append_kernel::Norm::Rotated } else { append_kernel::Norm::PerHead };
            (norm, Some((q.buffer(), k.buffer())), eps)
        }
        QkNorm::Full { q, k, eps } | QkNorm::Layer { q, k, eps } => {
            q.expect(OP, "weight of the q norm", &[num_q_heads.saturating_mul(head_dim)])?;
            k.expect(OP, "weight of the k norm", &[num_kv_heads.saturating_mul(head_dim)])?;
            let layer = matches!(opts.norm, QkNorm::Layer { .. });
            let norm = if layer { append_kernel::Norm::Layer } else { append_kernel::Norm::Full };
            (norm, Some((q.buffer(), k.buffer())), eps)
        }
    };
    let clip = opts.clip.unwrap_or(f32::MAX);
    if !(clip > 0.0 && clip.is_finite()) {
        let want = "positive and finite".into();
        return Err(OpError::Value { op: OP, what: "bound of q, k and v", got: clip.into(), want });
    }
    if let Some((table, _)) = opts.rope {
        check_rotary_dim(OP, table, head_dim)?;
        table.check_positions(OP, batch)?;
    }
    let q = frame.alloc(&[num_tokens, num_q_heads.saturating_mul(head_dim)], DType::F32)?;
    let table = opts.rope.map(|(table, _)| table);
    let switch_len = table.map_or(u32::MAX, RopeTable::switch);
    let params = append_kernel::Params {
        num_tokens,
        num_seqs,
        num_q_heads,
        num_kv_heads,
        head_dim,
        num_pairs: table.map_or(0, |t| t.num_pairs),
        max_positions: table.map_or(0, |t| t.max_positions),
        switch_len,
        eps,
        one_token_each: (num_tokens == num_seqs).into(),
        grid_y: 0,
        k_slot: kv.k_strides.slot,
        k_head: kv.k_strides.head,
        k_token: kv.k_strides.token,
        v_slot: kv.v_strides.slot,
        v_head: kv.v_strides.head,
        v_token: kv.v_strides.token,
        clip,
    };
    let mode = append_kernel::Mode {
        clips: opts.clip.is_some(),
        norm,
        rope: opts.rope.map(|(table, style)| (style.kernel(), table.angles)),
        f16: kv.f16,
    };
    let args = append_kernel::Args {
        qkv: qkv.buffer(),
        seqs: batch.seqs.buffer(),
        table: table.map(|t| t.data.buffer()),
        norms,
        q: q.buffer(),
        k: &kv.k,
        v: &kv.v,
    };
    append_kernel::record(frame.recorder(), args, params, mode)?;
    Ok(q)
}
