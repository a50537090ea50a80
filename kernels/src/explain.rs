//! What a recorded dispatch is, in words: which variant of its kernel, why that one, what it moves and computes.

use crate::caps::Caps;
use crate::recorder::Dispatch;
use crate::registry::KERNELS;
use crate::spec::Cost;
use crate::winners::key;

/// Why a variant was selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is the only one that the device can run.
    Only,
    /// The rule for this kind of device says so.
    Rule,
    /// It was measured to take the least time.
    Measured,
}

/// A dispatch in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// Kernel.
    pub kernel: &'static str,
    /// Formats of weights, type of keys and values; empty where there is one kind.
    pub data: String,
    /// Variant and its sizes: `subgroup 128x4`.
    pub variant: String,
    /// How the variant works.
    pub words: &'static str,
    /// Shape class, where variants are measured.
    pub shape: Option<String>,
    /// Why it was selected.
    pub why: Why,
    /// Variants that failed their self-test on this device.
    pub blocked: Vec<String>,
    /// Workgroups.
    pub grid: [u32; 3],
    /// What it moves and computes.
    pub cost: Cost,
}

/// A dispatch in words, with `keys` keys in the cache of a decode step.
pub fn explain(caps: &Caps, dispatch: &Dispatch, keys: u32) -> Explained {
    let kernel = dispatch.spec.name;
    let launch = dispatch.launch();
    let registered = KERNELS.iter().find(|k| k.spec.name == kernel);
    let ways = registered.and_then(|k| k.tuning).and_then(|tuning| (tuning.ways)(caps, &launch));
    let same = |way: &&crate::spec::Way| way.steps[0].launch.choice == launch.choice;
    let named = ways.as_ref().and_then(|ways| ways.ways.iter().position(|way| same(&way)));
    let winner = ways.as_ref().and_then(|w| caps.tuned.get(&key(kernel, launch.choice.data, &w.shape)));
    let name = named.and_then(|at| Some(ways.as_ref()?.ways[at].name.clone()));
    let why = match (&ways, &name) {
        (_, Some(name)) if winner == Some(name) => Why::Measured,
        (Some(ways), _) if ways.ways.len() > 1 => Why::Rule,
        // Kernels without ways have a variant for each kind of device.
        (None, _) if registered.is_some_and(|k| has_others(k, caps, dispatch)) => Why::Rule,
        _ => Why::Only,
    };
    let sizes: Vec<u64> = dispatch.buffers.iter().map(crate::buffer::Buffer::size).collect();
    let cost = registered
        .and_then(|k| k.cost)
        .map_or_else(|| Cost { bytes: sizes.iter().sum(), flops: 0 }, |cost| cost(&launch, &sizes, keys));
    let prefix = format!("{kernel}/");
    Explained {
        kernel,
        data: launch.choice.data.to_string(),
        variant: name.unwrap_or_else(|| launch.choice.variant.to_owned()),
        words: words(kernel, launch.choice.variant),
        shape: ways.map(|ways| ways.shape),
        why,
        blocked: caps.blocked.iter().filter_map(|b| b.strip_prefix(&prefix).map(str::to_owned)).collect(),
        grid: dispatch.grid.most(),
        cost,
    }
}

/// Whether a kernel has another variant that the device could run.
fn has_others(kernel: &crate::spec::Kernel, caps: &Caps, dispatch: &Dispatch) -> bool {
    (kernel.choices)().iter().any(|c| c.variant != dispatch.choice.variant && caps.runs(c))
}

/// How a variant works.
fn words(kernel: &str, variant: &str) -> &'static str {
    match (kernel, variant) {
        ("gemv" | "gemv_int", "lanes_subgroup") => "each lane owns rows of W, x is broadcast",
        ("gemv" | "gemv_int" | "norm_add_gemv", "subgroup") => {
            "a workgroup shares rows of W, sums through subgroups"
        }
        ("gemv" | "gemv_int" | "norm_add_gemv", _) => {
            "a workgroup shares rows of W, sums through workgroup memory"
        }
        (_, "direct_subgroup") => "tiles in registers, x shared through subgroups",
        (_, "direct") => "tiles in registers",
        (_, "tiled") => "tiles in workgroup memory",
        (_, "split_k") => "tiles in workgroup memory, channels shared among workgroups",
        (_, "rows_subgroup") => "each lane owns rows, keys shared through subgroups",
        (_, "rows") => "each lane owns rows",
        (_, "lanes") => "each lane owns keys",
        (_, "tiles_subgroup") => "tiles of keys, sums through subgroups",
        (_, "tiles") => "tiles of keys in workgroup memory",
        (_, "subgroup_vec4") => "sums through subgroups, four elements at a time",
        (_, "portable_vec4" | "vec4") => "four elements at a time",
        (_, "subgroup") => "sums through subgroups",
        _ => "one element at a time",
    }
}
