//! `girih doctor`: what this machine has, and what to do about what it lacks.

use std::io::Write;

use clap::Args;
use girih_kernels::{Caps, Gpu, GpuError, probe, selftest};
use serde_json::{Value, json};

use crate::error::Failure;
use crate::{Global, ceilings, device};

/// Arguments.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Only say whether there is an adapter: exit code 0 if there is, 2 if not
    #[arg(long)]
    probe: bool,
}

impl Doctor {
    /// Runs the command.
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        let adapters = Gpu::adapters().await;
        if self.probe && !adapters.is_empty() {
            let gpu = device::open(global).await?;
            writeln!(std::io::stdout(), "{}", device::describe(gpu.caps()))?;
            return Ok(());
        }
        if adapters.is_empty() {
            return Err(GpuError::NoAdapter { backends: "Vulkan, Metal and DX12".into() }.into());
        }
        let mut out = std::io::stdout().lock();
        if !global.json {
            for (i, caps) in adapters.iter().enumerate() {
                writeln!(out, "adapter {i}: {}", device::describe(caps))?;
            }
        }
        let gpu = device::open(global).await?;
        let caps = gpu.caps();
        if !global.json {
            writeln!(out, "\nin use: {}", device::describe(caps))?;
            for (name, value) in limits(caps) {
                writeln!(out, "  {name:<28} {value}")?;
            }
            out.flush()?;
        }
        let report = selftest::run(&gpu).await;
        let measured = probe::measure(&gpu).await?;
        gpu.check()?;
        if global.json {
            let report = json!({
                "adapters": adapters.iter().map(identity).collect::<Vec<_>>(),
                "in_use": identity(caps),
                "tier": caps.tier.to_string(),
                "limits": limits(caps).into_iter().map(|(k, v)| (k.to_owned(), v.into())).collect::<serde_json::Map<_, Value>>(),
                "self_test": { "launches": report.ran, "wrong": report.blocked },
                "measured_winners": caps.tuned.len(),
                "ceilings": ceilings::json(&measured),
            });
            writeln!(out, "{report}")?;
        } else {
            writeln!(out, "\nself-test: {} kernel launches, {} wrong", report.ran, report.blocked.len())?;
            for mismatch in &report.mismatches {
                writeln!(out, "  {mismatch}")?;
            }
            match caps.tuned.len() {
                0 => writeln!(out, "variants: by rule (`girih tune` measures them for a model)")?,
                winners => {
                    writeln!(out, "variants: by rule, for {winners} shapes as `girih tune` has measured")?;
                }
            }
            for line in ceilings::lines(&measured) {
                writeln!(out, "{line}")?;
            }
            for advice in advice(caps, &adapters) {
                writeln!(out, "\n{advice}")?;
            }
        }
        if report.blocked.is_empty() {
            return Ok(());
        }
        Err(Failure::Check(format!(
            "{} kernel variants give wrong results on this driver and are not used: {}",
            report.blocked.len(),
            report.blocked.join(", ")
        )))
    }
}

fn identity(caps: &Caps) -> Value {
    let id = &caps.adapter;
    json!({ "name": id.name, "backend": id.backend, "driver": id.driver, "driver_info": id.driver_info,
        "tier": caps.best_tier().to_string() })
}

fn limits(caps: &Caps) -> Vec<(&'static str, String)> {
    let subgroup = caps.subgroup_size.map_or("not used".into(), |(min, max)| format!("{min} to {max}"));
    let matrix =
        if caps.matrix_shapes.is_empty() { "none".into() } else { format!("{:?}", caps.matrix_shapes) };
    vec![
        ("subgroup size", subgroup),
        ("f16 arithmetic", caps.f16.to_string()),
        ("cooperative matrices", matrix),
        ("workgroup memory", format!("{} bytes", caps.workgroup_bytes)),
        ("invocations per workgroup", caps.invocations.to_string()),
        ("storage binding", format!("{} MiB", caps.binding_bytes >> 20)),
        ("buffer", format!("{} MiB", caps.buffer_bytes >> 20)),
        ("storage buffers per kernel", caps.storage_buffers.to_string()),
        ("timestamps", caps.timestamps.to_string()),
        ("unified memory", caps.unified_memory.to_string()),
    ]
}

fn advice(caps: &Caps, adapters: &[Caps]) -> Vec<String> {
    let mut advice = Vec::new();
    if caps.is_cpu && adapters.iter().all(|a| a.is_cpu) {
        advice.push(
            "Only a software adapter was found. If this machine has a GPU, its Vulkan driver is missing: install \
             mesa-vulkan-drivers (AMD, Intel) or the vendor's driver (NVIDIA), and check that the user may open \
             /dev/dri/renderD*."
                .to_owned(),
        );
    }
    if caps.tier < caps.best_tier() {
        advice.push(format!(
            "The tier is held down to {} (--tier or GIRIH_TIER); the device has {}.",
            caps.tier,
            caps.best_tier()
        ));
    }
    advice
}
