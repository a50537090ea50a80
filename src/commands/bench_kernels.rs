//! `girih bench kernels`: every kernel beside the device's own ceilings.

use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use girih_kernels::registry::KERNELS;
use girih_kernels::{Gpu, KernelError, bench, probe};
use serde_json::{Value, json};

use crate::error::Failure;
use crate::{Global, device};

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
    /// Also write a page with a roofline plot
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

struct Row {
    kernel: &'static str,
    shape: String,
    variant: String,
    median: f64,
    p10: f64,
    p90: f64,
    cpu: Option<f64>,
    runs: usize,
    bytes: f64,
    flops: f64,
    checked: bool,
}

impl BenchKernels {
    /// Runs the bench.
    pub async fn run(self, gpu: &Gpu, global: &Global) -> Result<(), Failure> {
        let ceilings = probe::measure(gpu).await?;
        let mut out = std::io::stdout().lock();
        if !global.json {
            writeln!(out, "{}", device::describe(gpu.caps()))?;
            writeln!(
                out,
                "ceilings: copy {:.1} GB/s, f32 multiply-add {:.1} GFLOP/s, dispatch {:.1} us\n",
                ceilings.copy_bytes / 1e9,
                ceilings.fma_flops / 1e9,
                ceilings.dispatch * 1e6
            )?;
            writeln!(
                out,
                "| {:<18} | {:<24} | {:>10} | {:>10} | {:>10} | {:>10} | {:>8} | {:>5} | {:>8} | {:>5} | variant |",
                "kernel", "shape", "median us", "p10", "p90", "cpu us", "GB/s", "%", "GFLOP/s", "%"
            )?;
        }
        let mut rows = Vec::new();
        let mut wrong = Vec::new();
        for kernel in KERNELS {
            if self.name.as_ref().is_some_and(|name| !kernel.spec.name.contains(name.as_str())) {
                continue;
            }
            for case in (kernel.benches)() {
                if self.shape.as_ref().is_some_and(|shape| !case.name.contains(shape.as_str())) {
                    continue;
                }
                let measurements = match bench::run(gpu, kernel.spec, &case, self.seconds).await {
                    Ok(measurements) => measurements,
                    // A shape for larger devices is no failure of the others.
                    Err(e @ KernelError::OverLimit { .. }) => {
                        eprintln!("left out {} {}: {e}", kernel.spec.name, case.name);
                        continue;
                    }
                    Err(e) => return Err(e.into()),
                };
                for m in measurements {
                    if let Some(what) = &m.wrong {
                        wrong.push(format!("{} {}: {what}", kernel.spec.name, case.name));
                    }
                    let row = Row {
                        kernel: kernel.spec.name,
                        shape: case.name.clone(),
                        variant: format!("{} {}", m.variant, m.selection),
                        median: m.quantile(0.5),
                        p10: m.quantile(0.1),
                        p90: m.quantile(0.9),
                        cpu: m.cpu_seconds,
                        runs: m.seconds.len(),
                        bytes: case.bytes as f64,
                        flops: case.flops as f64,
                        checked: m.checked,
                    };
                    if !global.json {
                        row.print(&mut out, &ceilings)?;
                    }
                    rows.push(row);
                }
            }
        }
        gpu.check()?;
        if global.json {
            let rows: Vec<Value> = rows.iter().map(|r| r.json(&ceilings)).collect();
            let report = json!({ "device": device::describe(gpu.caps()), "copy_gb_per_s": ceilings.copy_bytes / 1e9,
                "fma_gflop_per_s": ceilings.fma_flops / 1e9, "dispatch_us": ceilings.dispatch * 1e6, "kernels": rows });
            writeln!(out, "{report}")?;
        }
        if let Some(path) = &self.html {
            let page = page(&device::describe(gpu.caps()), &rows, &ceilings);
            std::fs::write(path, page)
                .map_err(|source| Failure::File { path: path.display().to_string(), source })?;
        }
        if wrong.is_empty() { Ok(()) } else { Err(Failure::Check(wrong.join("\n"))) }
    }
}

impl Row {
    fn rates(&self, c: &probe::Ceilings) -> [f64; 4] {
        let (bandwidth, rate) = (self.bytes / self.median, self.flops / self.median);
        [bandwidth / 1e9, 100.0 * bandwidth / c.copy_bytes, rate / 1e9, 100.0 * rate / c.fma_flops]
    }

    fn print(&self, out: &mut impl Write, c: &probe::Ceilings) -> std::io::Result<()> {
        let [gb, gb_share, gflop, gflop_share] = self.rates(c);
        let cpu = self.cpu.unwrap_or(f64::NAN) * 1e6;
        let [median, p10, p90] = [self.median, self.p10, self.p90].map(|s| s * 1e6);
        writeln!(
            out,
            "| {:<18} | {:<24} | {median:>10.1} | {p10:>10.1} | {p90:>10.1} | {cpu:>10.1} | {gb:>8.2} | {gb_share:>5.1} | \
             {gflop:>8.2} | {gflop_share:>5.1} | {} |",
            self.kernel, self.shape, self.variant
        )
    }

    fn json(&self, c: &probe::Ceilings) -> Value {
        let [gb, gb_share, gflop, gflop_share] = self.rates(c);
        json!({ "kernel": self.kernel, "shape": self.shape, "variant": self.variant, "runs": self.runs,
            "median_us": self.median * 1e6, "p10_us": self.p10 * 1e6, "p90_us": self.p90 * 1e6, "cpu_us": self.cpu.map(|s| s * 1e6),
            "gb_per_s": gb, "percent_of_copy": gb_share, "gflop_per_s": gflop, "percent_of_fma": gflop_share,
            "checked_against_twin": self.checked })
    }
}

/// A page with a table and a roofline plot, without scripts.
fn page(device: &str, rows: &[Row], c: &probe::Ceilings) -> String {
    const W: f64 = 760.0;
    const H: f64 = 420.0;
    // log10 of FLOP per byte and of GFLOP/s.
    let (x0, x1, top) = (-2.0, 3.0, (c.fma_flops / 1e9).log10() + 0.3);
    let bottom = top - 5.0;
    let px = |intensity: f64| (intensity.max(1e-9).log10() - x0) / (x1 - x0) * W;
    let py = |gflops: f64| (top - gflops.max(1e-9).log10()) / (top - bottom) * H;
    let roof = |intensity: f64| (intensity * c.copy_bytes / 1e9).min(c.fma_flops / 1e9);
    let mut line = String::new();
    for i in 0..=100 {
        let intensity = 10f64.powf(x0 + (x1 - x0) * f64::from(i) / 100.0);
        let _ = write!(line, "{:.1},{:.1} ", px(intensity), py(roof(intensity)));
    }
    let (mut points, mut table) = (String::new(), String::new());
    for row in rows {
        let [gb, gb_share, gflop, gflop_share] = row.rates(c);
        let title =
            format!("{} {}: {gflop:.1} GFLOP/s, {gb:.1} GB/s ({})", row.kernel, row.shape, row.variant);
        let _ = write!(
            points,
            r##"<circle cx="{:.1}" cy="{:.1}" r="4" fill="#1f6feb"><title>{title}</title></circle>"##,
            px(row.flops / row.bytes),
            py(gflop)
        );
        let _ = write!(
            table,
            "<tr><td>{}<td>{}<td>{:.1}<td>{gb:.2}<td>{gb_share:.1}%<td>{gflop:.2}<td>{gflop_share:.1}%<td>{}</tr>",
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
<p>Roofline: copy {:.1} GB/s, f32 multiply-add {:.1} GFLOP/s. Both axes are logarithmic: FLOP per byte that the
operation must move (0.01 to 1000), GFLOP/s. Each point is the median of a kernel at a shape.</p>
<svg viewBox="-10 -10 780 440" width="780" role="img" aria-label="roofline plot">
<rect width="{W}" height="{H}" fill="none" stroke="#888"/><polyline points="{line}" fill="none" stroke="#d1242f" stroke-width="2"/>{points}</svg>
<table><tr><th>kernel<th>shape<th>median us<th>GB/s<th>of copy<th>GFLOP/s<th>of multiply-add<th>variant</tr>{table}</table>
"##,
        c.copy_bytes / 1e9,
        c.fma_flops / 1e9
    )
}
