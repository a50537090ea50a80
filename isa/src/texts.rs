//! The texts that `select` gives a device: at the shapes that are timed, and one of each kernel that has none.

use std::collections::BTreeMap;

use girih_kernels::registry::KERNELS;
use girih_kernels::shaders::{Dialect, compose};
use girih_kernels::{Caps, Choice, Data, Kernel, Launch};

/// A launch of a text: its place in the report.
#[derive(Clone, Debug)]
pub struct Use {
    /// Kernel.
    pub kernel: &'static str,
    /// Variant, and the reader of data where the kernel has several and no shape names one.
    pub variant: String,
    /// Shape, or nothing.
    pub case: String,
    /// Constants and parts.
    pub selection: String,
    /// Invocations of a workgroup.
    pub invocations: u32,
    /// Bytes of workgroup memory that the kernel declares.
    pub workgroup_bytes: u32,
    /// What is computed, where there is a shape.
    pub work: Option<Work>,
}

/// What a launch has to do.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Workgroups.
    pub groups: u64,
    /// Bytes that must be moved.
    pub bytes: u64,
    /// Operations that must be done; a multiply-add is two.
    pub flops: u64,
    /// Operations that are done: tiles compute rows and columns beyond the edges too.
    pub done: u64,
}

impl Use {
    /// What `--filter` is matched with.
    pub fn label(&self) -> String {
        format!("{}/{} {} [{}]", self.kernel, self.variant, self.case, self.selection)
    }
}

/// WGSL, and the launches that use it.
#[derive(Clone, Debug)]
pub struct Text {
    /// What the driver is given.
    pub wgsl: String,
    /// One or more.
    pub uses: Vec<Use>,
}

/// The texts for a device in the order of the registry, each once.
pub fn texts(caps: &Caps) -> Result<Vec<Text>, String> {
    let mut texts: Vec<Text> = Vec::new();
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    for kernel in KERNELS {
        for (choice, of) in uses(kernel, caps) {
            let wgsl = compose(choice.file, &choice.selection, Dialect::Naga)
                .map_err(|e| format!("{}: {e}", of.label()))?
                .wgsl;
            let index = *known.entry(wgsl.clone()).or_insert_with(|| {
                texts.push(Text { wgsl, uses: Vec::new() });
                texts.len() - 1
            });
            texts[index].uses.push(of);
        }
    }
    Ok(texts)
}

fn uses(kernel: &Kernel, caps: &Caps) -> Vec<(Choice, Use)> {
    let of = |choice: &Choice, variant: String, case: &str, work| Use {
        kernel: kernel.spec.name,
        variant,
        case: case.to_owned(),
        selection: choice.selection.to_string(),
        invocations: choice.invocations,
        workgroup_bytes: choice.workgroup_bytes,
        work,
    };
    let mut all = Vec::new();
    for bench in (kernel.benches)() {
        for launch in (bench.launches)(caps, &bench.name) {
            if caps.runs(&launch.choice) {
                let groups = launch.grid.iter().map(|&n| u64::from(n)).product();
                let done = (bench.flops as f64 * beyond_the_edges(&launch, &bench.name)) as u64;
                let work = Work { groups, bytes: bench.bytes, flops: bench.flops, done };
                let named = of(&launch.choice, launch.choice.variant.into(), &bench.name, Some(work));
                all.push((launch.choice, named));
            }
        }
    }
    // A kernel with shapes of which none launches it is one that this device is not given.
    if (kernel.benches)().is_empty() {
        for choice in without_shapes(&(kernel.choices)(), caps) {
            let variant = match choice.data {
                Data::Plain => choice.variant.to_owned(),
                data => format!("{}/{data}", choice.variant),
            };
            let named = of(&choice, variant, "", None);
            all.push((choice, named));
        }
    }
    all
}

/// How many times as many results a product's tiles have as are wanted; the shape is called `MxNxK ..`.
fn beyond_the_edges(launch: &Launch, case: &str) -> f64 {
    let constant = |name| launch.choice.selection.get_u32(name);
    let (Some(tm), Some(tn), Some(tx), Some(ty)) =
        (constant("TM"), constant("TN"), constant("TX"), constant("TY"))
    else {
        return 1.0;
    };
    let wanted: Vec<u32> = case.split('x').map_while(|n| n.parse().ok()).take(2).collect();
    let [m, n] = wanted[..] else { return 1.0 };
    let [columns, rows, _] = launch.grid.map(f64::from);
    rows * f64::from(tm * ty) / f64::from(m) * columns * f64::from(tn * tx) / f64::from(n)
}

/// Of a kernel without shapes: the largest workgroup of the variant that comes first among those that the device runs,
/// with each reader of data.
fn without_shapes(choices: &[Choice], caps: &Caps) -> Vec<Choice> {
    let runs: Vec<&Choice> = choices.iter().filter(|choice| caps.runs(choice)).collect();
    let mut largest: Vec<Choice> = Vec::new();
    for choice in runs.iter().filter(|choice| choice.variant == runs[0].variant) {
        match largest.iter_mut().find(|other| other.data == choice.data) {
            Some(other) if other.invocations < choice.invocations => *other = (*choice).clone(),
            Some(_) => {}
            None => largest.push((*choice).clone()),
        }
    }
    largest
}
