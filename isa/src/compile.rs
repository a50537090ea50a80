//! In a process of its own, behind the shim of a device: compiles its texts and describes what they became.

use std::fs;
use std::path::Path;

use crate::devices::Device;
use crate::listing::{self, Loop};
use crate::options::Options;
use crate::roofline::{self, Launch};
use crate::row::{Compiled, Hot, Row};
use crate::spirv;
use crate::statistics::{Figures, figures};
use crate::texts::{Text, Use, texts};
use crate::vulkan::{self, Executable};

/// Compiles all texts of a device that are asked for; writes what the driver tells below `options.out`.
pub fn compile(device: &Device, options: &Options) -> Result<Compiled, String> {
    let open = vulkan::Device::open()?;
    let folder = options.out.join(device.name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut all =
        Compiled { name: open.caps.adapter.name.clone(), driver: open.driver.clone(), ..Compiled::default() };
    for mut text in texts(&open.caps)? {
        text.uses.retain(|of| options.wants(&of.label()));
        let Some(first) = text.uses.first() else { continue };
        let compiled = spirv::compile(&text.wgsl, &open).and_then(|shader| open.compile(&shader));
        match compiled
            .and_then(|found| found.into_iter().next().ok_or("the driver shows no executable".into()))
        {
            Ok(executable) => {
                write(&folder, &text, &executable)?;
                all.rows.extend(rows(device, &text, &executable));
            }
            Err(error) => all.refused.push(format!("{} {}: {error}", device.name, first.label())),
        }
    }
    Ok(all)
}

/// The text and its listings, for reading.
fn write(folder: &Path, text: &Text, executable: &Executable) -> Result<(), String> {
    let stem = text.uses.first().map_or_else(String::new, stem);
    let mut files = vec![(format!("{stem}.wgsl"), text.wgsl.as_str())];
    files
        .extend(executable.listings.iter().map(|(name, text)| (format!("{stem} {name}.txt"), text.as_str())));
    for (name, text) in files {
        let path = folder.join(file_name(&name));
        fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}

fn stem(of: &Use) -> String {
    if of.case.is_empty() {
        format!("{} {}", of.kernel, of.variant)
    } else {
        format!("{} {} {}", of.kernel, of.variant, of.case)
    }
}

fn file_name(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect()
}

fn rows(device: &Device, text: &Text, executable: &Executable) -> Vec<Row> {
    let figures = figures(&executable.statistics);
    let assembly = executable.listings.iter().find(|(name, _)| name.to_lowercase().contains("assembly"));
    let loops = assembly.and_then(|(_, listing)| listing::loops(device.driver, listing)).unwrap_or_default();
    let multiplies_bytes = text.wgsl.contains("dot4I8Packed");
    let hot = hot(device, &roofline::hot(&loops, multiplies_bytes), executable.subgroup);
    let row = |of: &Use| {
        let admits = of.work.and_then(|work| {
            let launch = Launch {
                subgroup: executable.subgroup,
                invocations: of.invocations,
                resident: resident(device, &figures),
                work,
                multiplies_bytes,
            };
            roofline::admits(&device.model, &launch, &loops)
        });
        Row {
            device: device.name.into(),
            kernel: of.kernel.into(),
            variant: of.variant.clone(),
            case: of.case.clone(),
            selection: of.selection.clone(),
            subgroup: executable.subgroup,
            registers: figures.registers,
            spills: figures.spills,
            occupancy: figures.occupancy,
            workgroup_bytes: figures.workgroup_bytes.unwrap_or(of.workgroup_bytes),
            scratch_bytes: figures.scratch_bytes,
            instructions: figures.instructions,
            hot: hot.clone(),
            admits: admits.map(|admits| (100.0 * admits.share).round() as u32),
            limit: admits.map(|admits| admits.limit),
        }
    };
    text.uses.iter().map(row).collect()
}

fn hot(device: &Device, hot: &[&Loop], subgroup: u32) -> Option<Hot> {
    if hot.is_empty() {
        return None;
    }
    let mut sum = Hot::default();
    let mut cycles = 0.0;
    for found in hot {
        sum.instructions += found.total();
        cycles += device.model.cycles(&found.own, subgroup);
        for (class, count) in found.counts() {
            *sum.classes.entry(class).or_default() += count;
        }
    }
    sum.cycles = f64::round(cycles) as u32;
    Some(sum)
}

/// Subgroups that a SIMD can hold, from what the driver calls occupancy; `None` where that is no such number.
fn resident(device: &Device, figures: &Figures) -> Option<f64> {
    let occupancy = f64::from(figures.occupancy?);
    device
        .driver
        .occupancy_of_unit()
        .map(|of_unit| if of_unit { occupancy / f64::from(device.model.simds) } else { occupancy })
}
