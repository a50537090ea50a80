//! What a model takes of a device's memory, said before anything is loaded; and what would fit instead.

use std::fmt;

use girih_ops::kernels::Caps;
use girih_ops::{Format, WeightFormat};

use crate::checkpoint::table::{TensorInfo, TensorTable};
use crate::error::{OutOfMemory, size};
use crate::network::arch;
use crate::network::config::Config;
use crate::run::options::{PREFILL_TOKENS, SessionOptions};

/// The smallest context that is worth advising.
const SMALL_CONTEXT: u32 = 256;

/// Bytes on the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Weights.
    pub weights: u64,
    /// Keys and values of all layers and sequences.
    pub cache: u64,
    /// The largest buffer that a layer keeps, its keys or states: it must fit one binding.
    pub layer: u64,
    /// Intermediate results of the largest piece of a prompt.
    pub scratch: u64,
}

impl Demand {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights.saturating_add(self.cache).saturating_add(self.scratch)
    }
}

impl fmt::Display for Demand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [weights, cache, scratch] = [self.weights, self.cache, self.scratch].map(size);
        write!(f, "{weights} for weights, {cache} for keys and values, {scratch} for intermediate results")
    }
}

/// What of a model can be had smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// How weights are stored; as in the checkpoint if `None`.
    pub weights: Option<WeightFormat>,
    /// Tokens of a sequence.
    pub context: u32,
    /// Sequences; 0 without a cache.
    pub slots: u32,
    /// Keys and values as f16.
    pub f16_cache: bool,
}

impl Choice {
    /// A model with weights of a format and a session; without a cache if there is none.
    pub fn new(weights: Option<WeightFormat>, context: u32, session: Option<SessionOptions>) -> Self {
        Self {
            weights,
            context: session.and_then(|s| s.context).unwrap_or(context),
            slots: session.map_or(0, |s| s.slots.max(1)),
            f16_cache: session.is_some_and(|s| s.f16_cache),
        }
    }
}

/// What a device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Bytes that are free; `None` where nobody tells, as on every GPU.
    pub free: Option<u64>,
    /// Bytes of one binding.
    pub binding: u64,
}

impl Offer {
    /// What is known of a device: its limits, and where it is the CPU the memory that the system has left.
    pub fn of(caps: &Caps) -> Self {
        let system = || left(&std::fs::read_to_string("/proc/meminfo").ok()?);
        Self { free: if caps.is_cpu { system() } else { None }, binding: caps.binding_bytes }
    }
}

/// Bytes that Linux can give without taking them from another program.
fn left(meminfo: &str) -> Option<u64> {
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    let swap = field("SwapFree").unwrap_or(0);
    field("MemAvailable")?.checked_add(swap)?.checked_mul(1024)
}

/// Bytes of weights as they are stored, or in another format; of experts at most `experts`.
pub fn weight_bytes(table: &TensorTable, force: Option<WeightFormat>, experts: Option<u64>) -> u64 {
    let bytes = |w: &TensorInfo| {
        let Some(force) = force else { return w.range.end - w.range.start };
        let count = w.shape.iter().fold(1, |product: u64, &d| product.saturating_mul(d));
        if count == 0 {
            return 0;
        }
        match (force, w.shape.as_slice()) {
            // Embeddings stay as they are.
            (WeightFormat::Quant(_), _) if w.name.contains("embed") => w.range.end - w.range.start,
            (WeightFormat::Quant(format), &[_, k]) => {
                let bits = format.bits_per_weight(u32::try_from(k).unwrap_or(u32::MAX));
                (count as f64 * bits / 8.0) as u64
            }
            (WeightFormat::Quant(_), _) => count.saturating_mul(4),
            (dense, _) => count.saturating_mul(dense.element_bytes().unwrap_or(4).into()),
        }
    };
    // Theirs: `experts.3.up_proj.weight`, `experts.up_proj`; and as GGUF has them.
    let is_expert = |w: &TensorInfo| w.name.contains(".experts.") || w.name.contains("_exps.");
    let sum = |of_experts: bool| {
        let tensors = table.iter().filter(|w| is_expert(w) == of_experts);
        tensors.map(bytes).fold(0, u64::saturating_add)
    };
    sum(false).saturating_add(sum(true).min(experts.unwrap_or(u64::MAX)))
}

/// Bytes of intermediate results, about: those of a layer for the largest piece of a prompt, and one row of logits.
/// Results that lie on the device at the same time have buffers of their own; those of one layer are used by the next.
pub fn scratch_bytes(config: &Config, context: u32) -> u64 {
    let wide = |n: u32| u64::from(n);
    let heads = wide(config.num_attention_heads);
    // The residual stream, a norm and two results of C; those of attention; the gated product.
    let feed_forward = config.feed_forward_channels();
    let parts = [4 * wide(config.hidden_size), config.attention_channels(), feed_forward, heads];
    let row = parts.into_iter().fold(0, u64::saturating_add);
    let tokens = u64::from(context).min(PREFILL_TOKENS as u64);
    row.saturating_mul(tokens).saturating_add(config.vocab_size.into()).saturating_mul(4)
}

/// What a model needs, `weights` being the bytes of its weights.
pub fn demand(config: &Config, weights: u64, choice: &Choice) -> Demand {
    let slots = if arch::is_encoder(&config.model_type) { 0 } else { choice.slots };
    let of_all = |bytes: u64| bytes.saturating_mul(slots.into());
    Demand {
        weights,
        cache: of_all(config.cache_bytes(choice.context, choice.f16_cache)),
        layer: of_all(config.largest_kept_bytes(choice.context, choice.f16_cache)),
        scratch: scratch_bytes(config, choice.context),
    }
}

/// Refuses what the device is known not to have, and says what would fit.
///
/// `demand` tells what a choice needs; `dense` whether weights may be asked for in other formats.
pub fn refusal(
    asked: &Choice,
    dense: bool,
    offer: &Offer,
    demand: impl Fn(&Choice) -> Demand,
) -> Option<OutOfMemory> {
    let fits = |choice: &Choice| lack(&demand(choice), offer).is_none();
    let message = lack(&demand(asked), offer)?;
    let mut advice: Vec<String> =
        smaller(asked, dense).iter().filter(|choice| fits(choice)).map(|c| said(asked, c, &demand)).collect();
    let shorter = |choice: Choice| longest(choice, &fits).map(|context| Choice { context, ..choice });
    if let Some(choice) = shorter(*asked) {
        advice.insert(0, said(asked, &choice, &demand));
    }
    if advice.is_empty() {
        let least = Choice { f16_cache: asked.slots > 0, ..least_weights(asked, dense) };
        advice.extend(shorter(least).map(|choice| said(asked, &choice, &demand)));
    }
    let advice = match advice.as_slice() {
        [] => "nothing smaller fits".to_owned(),
        fitting => format!("what fits: {}", fitting.join("; ")),
    };
    Some(out_of_memory(&demand(asked), asked.context, message, advice))
}

/// An error for a device that had less than it needed, with what needs less.
pub fn exhausted(
    asked: &Choice,
    dense: bool,
    message: String,
    demand: impl Fn(&Choice) -> Demand,
) -> OutOfMemory {
    let mut choices = smaller(asked, dense);
    if asked.slots > 0 && asked.context / 4 >= SMALL_CONTEXT {
        choices.insert(0, Choice { context: asked.context / 4, ..*asked });
    }
    let advice: Vec<String> = choices.iter().map(|choice| said(asked, choice, &demand)).collect();
    let advice = match advice.as_slice() {
        [] => "a lower --context needs less".to_owned(),
        less => format!("what needs less: {}", less.join("; ")),
    };
    out_of_memory(&demand(asked), asked.context, message, advice)
}

fn out_of_memory(demand: &Demand, context: u32, message: String, advice: String) -> OutOfMemory {
    let Demand { weights, cache, scratch, .. } = *demand;
    OutOfMemory { weights, cache, scratch, context, message, advice }
}

/// What is missing; `None` if nothing is known to be.
fn lack(demand: &Demand, offer: &Offer) -> Option<String> {
    if demand.layer > offer.binding {
        let (layer, binding) = (size(demand.layer), size(offer.binding));
        return Some(format!(
            "what a layer keeps in one buffer is {layer}, a buffer of the device holds {binding}"
        ));
    }
    let free = offer.free.filter(|&free| demand.total() > free)?;
    Some(format!("{} are free", size(free)))
}

/// Choices with one thing smaller, the context apart.
fn smaller(asked: &Choice, dense: bool) -> Vec<Choice> {
    let mut choices = Vec::new();
    if asked.slots > 0 && !asked.f16_cache {
        choices.push(Choice { f16_cache: true, ..*asked });
    }
    let is_float = !matches!(asked.weights, Some(WeightFormat::Quant(_)));
    if dense && is_float {
        for format in [Format::Q8_0, Format::Q4_0] {
            choices.push(Choice { weights: Some(format.into()), ..*asked });
        }
    }
    choices
}

fn least_weights(asked: &Choice, dense: bool) -> Choice {
    Choice { weights: if dense { Some(Format::Q4_0.into()) } else { asked.weights }, ..*asked }
}

/// The longest context below that of `choice` that fits, in steps of the smallest.
fn longest(choice: Choice, fits: &impl Fn(&Choice) -> bool) -> Option<u32> {
    let steps = choice.context.saturating_sub(1) / SMALL_CONTEXT;
    let fits = |step: u32| fits(&Choice { context: step * SMALL_CONTEXT, ..choice });
    if choice.slots == 0 || steps == 0 || !fits(1) {
        return None;
    }
    let (mut low, mut high) = (1, steps); // the first fits
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if fits(middle) { low = middle } else { high = middle - 1 }
    }
    Some(low * SMALL_CONTEXT)
}

/// A choice as the command has it, and what it demand.
fn said(asked: &Choice, choice: &Choice, demand: &impl Fn(&Choice) -> Demand) -> String {
    let mut options = Vec::new();
    if choice.weights != asked.weights {
        let int4 = choice.weights == Some(Format::Q4_0.into());
        options.push(format!("--weights {}", if int4 { "int4" } else { "int8" }));
    }
    if choice.f16_cache != asked.f16_cache {
        options.push("--cache f16".to_owned());
    }
    if choice.context != asked.context {
        options.push(format!("--context {}", choice.context));
    }
    format!("{} ({})", options.join(" "), size(demand(choice).total()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::table::StoredType;

    const MB: u64 = 1_000_000;

    /// 800 MB of weights (400 in 8 bits, 200 in 4), 1 MB for 10 tokens of an f32 cache in 2 layers, 5 MB of scratch.
    fn made_up(choice: &Choice) -> Demand {
        let weights = match choice.weights {
            Some(format) if format == Format::Q8_0.into() => 400 * MB,
            Some(_) => 200 * MB,
            None => 800 * MB,
        };
        let bytes = u64::from(choice.context) * MB / 10 * u64::from(choice.slots);
        let cache = if choice.f16_cache { bytes / 2 } else { bytes };
        Demand { weights, cache, layer: cache / 4, scratch: 5 * MB }
    }

    fn asked(context: u32) -> Choice {
        Choice { weights: None, context, slots: 1, f16_cache: false }
    }

    fn told(choice: &Choice, dense: bool, free: u64) -> Option<String> {
        let offer = Offer { free: Some(free * MB), binding: 1 << 30 };
        refusal(choice, dense, &offer, made_up).map(|refused| refused.to_string())
    }

    #[test]
    fn what_fits_is_not_refused() {
        assert_eq!(told(&asked(4096), true, 1215), None); // 800 + 409.6 + 5
        assert!(told(&asked(4096), true, 1214).is_some());
        // Where nothing is known, nothing is said.
        let offer = Offer { free: None, binding: 1 << 30 };
        assert!(refusal(&asked(4096), true, &offer, made_up).is_none());
    }

    #[test]
    fn what_would_fit_is_said() {
        let said = told(&asked(4096), true, 1100).expect("refused");
        for part in [
            "1.2 GB",
            "800.0 MB of weights",
            "409.6 MB of keys and values for 4096 tokens",
            "5.0 MB of inter",
            "1.1 GB are free",
            "--context 2816 (1.1 GB)",
            "--cache f16 (1.0 GB)",
            "--weights int8 (814.6 MB)",
            "--weights int4 (614.6 MB)",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        // Weights that are quantised stay as they are.
        let said = told(&asked(4096), false, 900).expect("refused");
        assert!(said.contains("--context 768") && !said.contains("--weights"), "{said}");
        // Only everything together.
        let said = told(&asked(4096), true, 300).expect("refused");
        assert!(said.contains("what fits: --weights int4 --cache f16 --context 1792 (294.6 MB)"), "{said}");
        assert!(told(&asked(4096), true, 100).expect("refused").contains("nothing smaller fits"));
        // Without a cache a context costs nothing.
        let said = told(&Choice { slots: 0, ..asked(4096) }, true, 500).expect("refused");
        assert!(said.contains("--weights int8 (405.0 MB)") && !said.contains("--context"), "{said}");
    }

    #[test]
    fn a_layer_must_fit_a_binding() {
        let offer = Offer { free: None, binding: 64 * MB };
        let said = refusal(&asked(4096), true, &offer, made_up).expect("refused").to_string();
        assert!(said.contains("102.4 MB, a buffer of the device holds 64.0 MB"), "{said}");
        assert!(said.contains("--context 2560") && said.contains("--cache f16"), "{said}");
        assert!(!said.contains("--weights"), "{said}");
    }

    #[test]
    fn a_device_that_ran_out_is_told_what_needs_less() {
        let said = exhausted(&asked(4096), true, "no memory".into(), made_up).to_string();
        assert!(said.contains("no memory") && said.contains("--context 1024 (907.4 MB)"), "{said}");
        let small = Choice { f16_cache: true, ..asked(64) };
        assert!(exhausted(&small, false, "no".into(), made_up).to_string().contains("lower --context"));
    }

    #[test]
    fn linux_says_what_is_left() {
        let text =
            "MemTotal:  8000000 kB\nMemAvailable:    5000 kB\nSwapTotal: 9 kB\nSwapFree:          24 kB\n";
        assert_eq!(left(text), Some(5024 * 1024));
        assert_eq!(left("MemAvailable: 7 kB\n"), Some(7 * 1024));
        assert_eq!(left("MemTotal: 8 kB\n"), None);
        assert_eq!(left("MemAvailable: many kB\n"), None);
        assert_eq!(left(&format!("MemAvailable: {} kB\n", u64::MAX)), None);
    }

    #[test]
    fn tensors_without_elements_need_no_memory() {
        let info = |name: &str, shape: &[u64], bytes: u64| TensorInfo {
            name: name.into(),
            dtype: StoredType::F32,
            shape: shape.to_vec(),
            file: "f".into(),
            range: 0..bytes,
        };
        let table = TensorTable::new(vec![info("empty", &[0, 1 << 32], 0), info("w", &[8, 64], 2048)]);
        let table = table.expect("a table");
        assert_eq!(weight_bytes(&table, Some(WeightFormat::Quant(Format::Q4_0)), None), 288);
        assert_eq!(weight_bytes(&table, Some(WeightFormat::F16), None), 1024);
        assert_eq!(weight_bytes(&table, None, None), 2048);
    }
}
