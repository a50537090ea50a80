//! `girih bench kernels`: every kernel beside the device's own ceilings.

use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use girih_kernels::case::{Arithmetic, BenchCase};
use girih_kernels::matmul::bench::formats;
use girih_kernels::probe::{Ceiling, Ceilings};
use girih_kernels::registry::KERNELS;
use girih_kernels::{Gpu, GpuError, KernelError, KernelSpec, bench, probe};
use serde_json::{Value, json};

use crate::error::Failure;
use crate::{Global, ceilings, device};

/// Arguments.
#[derive(Debug, Args)]
pub struct BenchKernels {
    /// Only kernels whose name contains this
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Only shapes whose name contains this
    #[arg(long, value_name = "SHAPE")]
    shape: Option<String>,
    /// Seconds for each shape
    #[arg(long, value_name = "S", default_value_t = 1.0)]
    seconds: f64,
    /// Products with weights of every format instead, with 1, 4 and 64 rows
    #[arg(long)]
    all_formats: bool,
    /// Also write a page with a roofline plot
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

struct Row {
    kernel: &'static str,
    shape: String,
    /// Variant and sizes; with `-v` all constants and parts.
    variant: String,
    median: f64,
    p10: f64,
    p90: f64,
    cpu: Option<f64>,
    runs: usize,
    bytes: f64,
    flops: f64,
    memory: Ceiling,
    arithmetic: Ceiling,
    checked: bool,
}

impl BenchKernels {
    /// What to time, as the options ask for it.
    fn cases(&self) -> Vec<(&'static KernelSpec, BenchCase)> {
        let mut cases = if self.all_formats {
            formats()
        } else {
            KERNELS
                .iter()
                .flat_map(|kernel| (kernel.benches)().into_iter().map(|case| (kernel.spec, case)))
                .collect()
        };
        let asked =
            |name: &Option<String>, of: &str| name.as_ref().is_none_or(|name| of.contains(name.as_str()));
        cases.retain(|(spec, case)| asked(&self.name, spec.name) && asked(&self.shape, &case.name));
        cases
    }

    /// Runs the bench.
    pub async fn run(self, gpu: &Gpu, global: &Global) -> Result<(), Failure> {
        let measured = probe::measure(gpu).await?;
        let mut out = std::io::stdout().lock();
        if !global.json {
            writeln!(out, "{}\n", device::describe(gpu.caps()))?;
            for line in ceilings::lines(&measured) {
                writeln!(out, "{line}")?;
            }
            writeln!(
                out,
                "\n| {:<14} | {:<28} | {:>10} | {:>10} | {:>10} | {:>10} | {:>8} | {:>8} | {:>5} | {:<13} | variant |",
                "kernel", "shape", "median us", "p10", "p90", "cpu us", "GB/s", "GFLOP/s", "%", "of"
            )?;
        }
        let mut rows = Vec::new();
        let mut wrong = Vec::new();
        for (spec, case) in self.cases() {
            let measurements = match bench::run(gpu, spec, &case, self.seconds).await {
                Ok(measurements) => measurements,
                // A shape for larger devices is no failure of the others.
                Err(
                    e @ (KernelError::OverLimit { .. } | KernelError::Gpu(GpuError::BufferTooLarge { .. })),
                ) => {
                    global.note(&format!("left out {} {}: {e}", spec.name, case.name));
                    continue;
                }
                Err(e) => return Err(e.into()),
            };
            for m in measurements {
                if let Some(what) = &m.wrong {
                    wrong.push(format!("{} {}: {what}", spec.name, case.name));
                }
                let row = Row {
                    kernel: spec.name,
                    shape: case.name.clone(),
                    variant: if global.verbose > 0 {
                        format!("{} {}", m.choice.variant, m.choice.selection)
                    } else {
                        m.choice.words()
                    },
                    median: m.quantile(0.5),
                    p10: m.quantile(0.1),
                    p90: m.quantile(0.9),
                    cpu: m.cpu_seconds,
                    runs: m.seconds.len(),
                    bytes: case.bytes as f64,
                    flops: case.flops as f64,
                    memory: measured.memory(case.bytes, case.written, m.set_bytes),
                    arithmetic: measured.arithmetic(case.arithmetic),
                    checked: m.checked,
                };
                if !global.json {
                    row.print(&mut out)?;
                }
                rows.push(row);
            }
        }
        gpu.check()?;
        if global.json {
            let rows: Vec<Value> = rows.iter().map(Row::json).collect();
            let report = json!({ "device": device::describe(gpu.caps()), "ceilings": ceilings::json(&measured),
                "kernels": rows });
            writeln!(out, "{report}")?;
        }
        if let Some(path) = &self.html {
            let page = page(&device::describe(gpu.caps()), &rows, &measured);
            std::fs::write(path, page)
                .map_err(|source| Failure::File { path: path.display().to_string(), source })?;
        }
        if wrong.is_empty() { Ok(()) } else { Err(Failure::Check(wrong.join("\n"))) }
    }
}

impl Row {
    /// Bytes and operations per second.
    fn rates(&self) -> [f64; 2] {
        [self.bytes / self.median, self.flops / self.median]
    }

    /// Percent of the ceilings of memory and of arithmetic.
    fn shares(&self) -> [f64; 2] {
        let [bytes, flops] = self.rates();
        [100.0 * bytes / self.memory.rate, 100.0 * flops / self.arithmetic.rate]
    }

    /// The ceiling that bounds it, and the percentage of that.
    fn bound(&self) -> (f64, &str) {
        let [memory, arithmetic] = self.shares();
        if arithmetic > memory { (arithmetic, &self.arithmetic.name) } else { (memory, &self.memory.name) }
    }

    fn print(&self, out: &mut impl Write) -> std::io::Result<()> {
        let [gb, gflop] = self.rates().map(|rate| rate / 1e9);
        let (share, name) = self.bound();
        let cpu = self.cpu.unwrap_or(f64::NAN) * 1e6;
        let [median, p10, p90] = [self.median, self.p10, self.p90].map(|s| s * 1e6);
        writeln!(
            out,
            "| {:<14} | {:<28} | {median:>10.1} | {p10:>10.1} | {p90:>10.1} | {cpu:>10.1} | {gb:>8.2} | {gflop:>8.2} | \
             {share:>5.1} | {name:<13} | {} |",
            self.kernel, self.shape, self.variant
        )
    }

    fn json(&self) -> Value {
        let [gb, gflop] = self.rates().map(|rate| rate / 1e9);
        let [memory, arithmetic] = self.shares();
        let (share, name) = self.bound();
        json!({ "kernel": self.kernel, "shape": self.shape, "variant": self.variant, "runs": self.runs,
            "median_us": self.median * 1e6, "p10_us": self.p10 * 1e6, "p90_us": self.p90 * 1e6, "cpu_us": self.cpu.map(|s| s * 1e6),
            "gb_per_s": gb, "memory_ceiling": self.memory.name, "percent_of_memory_ceiling": memory,
            "gflop_per_s": gflop, "arithmetic_ceiling": self.arithmetic.name, "percent_of_arithmetic_ceiling": arithmetic,
            "ceiling": name, "percent_of_ceiling": share, "checked_against_twin": self.checked })
    }
}

/// A page with a table and a roofline plot, without scripts.
fn page(device: &str, rows: &[Row], c: &Ceilings) -> String {
    const W: f64 = 760.0;
    const H: f64 = 420.0;
    // log10 of FLOP per byte and of GFLOP/s.
    // The roof of what no cache holds; points of smaller sets may lie above it.
    let (read, f32) = (c.memory(1, 0, u64::MAX), c.arithmetic(Arithmetic::F32));
    let (x0, x1, top) = (-2.0, 3.0, (f32.rate / 1e9).log10() + 0.3);
    let bottom = top - 5.0;
    let px = |intensity: f64| (intensity.max(1e-9).log10() - x0) / (x1 - x0) * W;
    let py = |gflops: f64| (top - gflops.max(1e-9).log10()) / (top - bottom) * H;
    let roof = |intensity: f64| (intensity * read.rate).min(f32.rate) / 1e9;
    let mut line = String::new();
    for i in 0..=100 {
        let intensity = 10f64.powf(x0 + (x1 - x0) * f64::from(i) / 100.0);
        let _ = write!(line, "{:.1},{:.1} ", px(intensity), py(roof(intensity)));
    }
    let (mut points, mut table) = (String::new(), String::new());
    for row in rows {
        let [gb, gflop] = row.rates().map(|rate| rate / 1e9);
        let (share, name) = row.bound();
        let title = format!(
            "{} {}: {gflop:.1} GFLOP/s, {gb:.1} GB/s, {share:.0}% of {name} ({})",
            row.kernel, row.shape, row.variant
        );
        let _ = write!(
            points,
            r##"<circle cx="{:.1}" cy="{:.1}" r="4" fill="#1f6feb"><title>{title}</title></circle>"##,
            px(row.flops / row.bytes),
            py(gflop)
        );
        let _ = write!(
            table,
            "<tr><td>{}<td>{}<td>{:.1}<td>{gb:.2}<td>{gflop:.2}<td>{share:.1}% of {name}<td>{}</tr>",
            row.kernel,
            row.shape,
            row.median * 1e6,
            row.variant
        );
    }
    format!(
        r##"<!doctype html><meta charset="utf-8"><title>girih bench</title>
<style>body{{font:14px sans-serif;margin:2em}}td,th{{padding:2px 10px;text-align:right}}td:first-child,td:nth-child(2),td:last-child{{text-align:left}}</style>
<h1>girih bench kernels</h1><p>{device}</p>
<p>{}</p>
<p>Roofline: {} {:.1} GB/s, {} {:.1} GFLOP/s. Both axes are logarithmic: FLOP per byte that the
operation must move (0.01 to 1000), GFLOP/s. Each point is the median of a kernel at a shape.</p>
<svg viewBox="-10 -10 780 440" width="780" role="img" aria-label="roofline plot">
<rect width="{W}" height="{H}" fill="none" stroke="#888"/><polyline points="{line}" fill="none" stroke="#d1242f" stroke-width="2"/>{points}</svg>
<table><tr><th>kernel<th>shape<th>median us<th>GB/s<th>GFLOP/s<th>of its ceiling<th>variant</tr>{table}</table>
"##,
        ceilings::lines(c).join("<br>"),
        read.name,
        read.rate / 1e9,
        f32.name,
        f32.rate / 1e9
    )
}
